//! Settings (RFC 9113 section 6.5, RFC 8441 section 3).

use super::{ErrorCode, WINDOW_MAX, frame};

/// `SETTINGS_HEADER_TABLE_SIZE`.
pub const TABLE_SIZE: u16 = 0x1;
/// `SETTINGS_ENABLE_PUSH`.
pub const ENABLE_PUSH: u16 = 0x2;
/// `SETTINGS_MAX_CONCURRENT_STREAMS`.
pub const STREAMS_MAX: u16 = 0x3;
/// `SETTINGS_INITIAL_WINDOW_SIZE`.
pub const INITIAL_WINDOW: u16 = 0x4;
/// `SETTINGS_MAX_FRAME_SIZE`.
const FRAME_SIZE: u16 = 0x5;
/// `SETTINGS_MAX_HEADER_LIST_SIZE`.
pub const HEAD_BYTES: u16 = 0x6;
/// `SETTINGS_ENABLE_CONNECT_PROTOCOL`.
pub const CONNECT_PROTOCOL: u16 = 0x8;

/// Reads a client's settings, and returns the initial window of a stream if they have one. The others
/// are only checked: what we send fits any of them. No frame is larger than every peer takes, field
/// blocks use no table, and nothing is pushed.
///
/// # Errors
/// What ends the connection.
pub fn initial_window(payload: &[u8]) -> Result<Option<u32>, ErrorCode> {
    let (settings, []) = payload.as_chunks::<6>() else { return Err(ErrorCode::FrameSizeError) };
    let mut window = None;
    for &[i1, i0, v3, v2, v1, v0] in settings {
        let value = u32::from_be_bytes([v3, v2, v1, v0]);
        match u16::from_be_bytes([i1, i0]) {
            ENABLE_PUSH | CONNECT_PROTOCOL if value > 1 => return Err(ErrorCode::ProtocolError),
            INITIAL_WINDOW if value > WINDOW_MAX => return Err(ErrorCode::FlowControlError),
            INITIAL_WINDOW => window = Some(value),
            FRAME_SIZE if !is_frame_size(value) => return Err(ErrorCode::ProtocolError),
            _ => {}
        }
    }
    Ok(window)
}

fn is_frame_size(value: u32) -> bool {
    (frame::PAYLOAD_BYTES_MAX as u32..1 << 24).contains(&value)
}
