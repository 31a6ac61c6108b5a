//! The body of `POST /channels/{channel}`.

use super::super::publish_head::PublishHead;
use crate::proto::http::body::BodyDecoder;

/// The body of a single event as it arrives.
#[derive(Debug)]
pub struct Body {
    pub decoder: BodyDecoder,
    pub head: PublishHead,
    pub data: Vec<u8>,
}

impl Body {
    /// Memory held for it.
    pub fn held_bytes(&self) -> usize {
        self.data.capacity()
    }
}
