//! Error codes (RFC 9113 section 7).

/// Why a stream is reset, or a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum ErrorCode {
    /// Nothing is wrong.
    NoError = 0x0,
    /// The peer broke the protocol.
    ProtocolError = 0x1,

    /// A window was exceeded.
    FlowControlError = 0x3,
    /// A frame for a stream that is closed.
    StreamClosed = 0x5,
    /// A frame of a wrong length.
    FrameSizeError = 0x6,
    /// The request was not processed, and may be made again.
    RefusedStream = 0x7,
    /// The stream is not needed any more.
    Cancel = 0x8,
    /// A field block can't be decoded.
    CompressionError = 0x9,
    /// The peer does too much of something.
    EnhanceYourCalm = 0xb,
}
