//! What an event type and an idempotency key may be.

use super::Invalid;
use crate::proto::attributes::Attributes;

/// Longest event type.
pub const TYPE_BYTES_MAX: usize = 128;
/// Longest idempotency key: the log keeps it as long as the event.
pub const KEY_BYTES_MAX: usize = 128;
/// Event types that begin with this are ours.
pub const RESERVED_PREFIX: &str = "pushline.";

/// Checks an event type, from the `Event-Type` header or an `event` field: 1 to 128 bytes, no
/// control characters (a line end would forge SSE fields), not reserved.
pub fn event_type(text: &str) -> Result<&str, Invalid> {
    if text.starts_with(RESERVED_PREFIX) {
        return Err(Invalid::ReservedEventType);
    }
    if !is_plain(text, TYPE_BYTES_MAX) {
        return Err(Invalid::EventType);
    }
    Ok(text)
}

/// Checks an idempotency key: 1 to 128 bytes, no control characters.
pub fn key(text: &str) -> Result<&str, Invalid> {
    if is_plain(text, KEY_BYTES_MAX) { Ok(text) } else { Err(Invalid::Key) }
}

/// Checks an event key: 1 to 128 bytes, no control characters.
pub fn event_key(text: &str) -> Result<&str, Invalid> {
    if is_plain(text, KEY_BYTES_MAX) { Ok(text) } else { Err(Invalid::EventKey) }
}

/// Checks what a publisher says about an event besides its type and idempotency key. `is_empty`:
/// the event has no data.
pub fn attributes(of: &Attributes, is_empty: bool) -> Result<(), Invalid> {
    let Attributes { event_key, tombstone, ephemeral, .. } = of;
    event_key.as_deref().map(self::event_key).transpose()?;
    if *tombstone && (event_key.is_none() || !is_empty || *ephemeral) {
        return Err(Invalid::Tombstone);
    }
    Ok(())
}

/// Whether it is 1 to this many bytes without control characters.
pub(crate) fn is_plain(text: &str, bytes_max: usize) -> bool {
    (1..=bytes_max).contains(&text.len()) && !text.chars().any(char::is_control)
}
