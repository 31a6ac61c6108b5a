//! The operator's own key. It is kept and compared as a digest, in constant time.

use std::fs;
use std::path::Path;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::auth::PUBLISH_KEY_BYTES_MIN;
use crate::proto::http::head::Request;
use crate::server::ServerError;

/// The key to the operator's listener.
#[derive(Debug)]
pub(super) struct Key {
    digest: [u8; 32],
}

impl Key {
    /// Reads it from its file; a line break at the end is not part of it.
    pub fn read(path: &Path) -> Result<Self, ServerError> {
        let unusable = |why: String| ServerError::AdminKey { path: path.to_owned(), why };
        let text = fs::read(path).map_err(|error| unusable(error.to_string()))?;
        let text = text.trim_ascii();
        if text.len() < PUBLISH_KEY_BYTES_MIN {
            return Err(unusable(format!("it has fewer than {PUBLISH_KEY_BYTES_MIN} bytes")));
        }
        Ok(Self { digest: Sha256::digest(text).into() })
    }

    /// Whether the request carries the key.
    pub fn opens(&self, request: &Request<'_>) -> bool {
        let mut shown = request.headers_named("authorization");
        let (Some(value), None) = (shown.next(), shown.next()) else { return false };
        let Some((scheme, key)) = value.split_at_checked(b"Bearer ".len()) else { return false };
        let digest: [u8; 32] = Sha256::digest(key.trim_ascii()).into();
        scheme.eq_ignore_ascii_case(b"Bearer ") && digest.ct_eq(&self.digest).into()
    }
}
