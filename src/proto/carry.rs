//! The beginning of something that is not complete yet.

/// The longest line, event or frame: the largest event that Pushline can be set to accept (16 MiB), with
/// base64 and framing.
pub const UNIT_BYTES_MAX: usize = 24 * 1024 * 1024;

/// A line, event, frame or head is longer than its limit; nothing more can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

/// Unfinished bytes. Boxed twice so that the usual, empty one takes 8 bytes: a load generator holds
/// a million of them.
#[derive(Debug, Default)]
#[expect(clippy::box_collection, reason = "a Vec takes 24 bytes in each idle connection")]
pub(crate) struct Carry(Option<Box<Vec<u8>>>);

impl Carry {
    /// Memory of the unfinished bytes.
    pub fn held_bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |kept| kept.capacity())
    }

    /// Runs `advance` over the carried bytes followed by `bytes`. `advance` is told how many of
    /// these it has seen before, and returns how many it is done with; the rest is carried.
    pub fn pour<E: From<TooLong>>(
        &mut self,
        bytes: &[u8],
        advance: impl FnOnce(&[u8], usize) -> Result<usize, E>,
    ) -> Result<(), E> {
        match self.0.take() {
            None => {
                let used = advance(bytes, 0)?;
                if used < bytes.len() {
                    self.0 = Some(Box::new(bytes[used..].to_vec()));
                }
            }
            Some(mut joined) => {
                let seen = joined.len();
                joined.extend_from_slice(bytes);
                let used = advance(&joined, seen)?;
                joined.drain(..used);
                self.0 = (!joined.is_empty()).then_some(joined);
            }
        }
        if self.0.as_ref().is_some_and(|kept| kept.len() > UNIT_BYTES_MAX) {
            return Err(TooLong.into());
        }
        Ok(())
    }
}
