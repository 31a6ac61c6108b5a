//! Why a head is refused.

use super::response::Status;

/// Why a head is refused. Each is the client's fault and ends the connection after the answer:
/// behind a head we can't read there is no telling where the next one begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HeadError {
    /// A CR that no LF follows.
    BareCr,
    /// A LF that no CR precedes.
    BareLf,
    /// `Content-Length` is not a plain decimal `u64`.
    ContentLengthInvalid,
    /// More than one `Content-Length`, even if they agree.
    ContentLengthRepeated,
    /// `Content-Length` together with `Transfer-Encoding`.
    ContentLengthWithTransferEncoding,
    /// A control byte (NUL among them) in a field value.
    ControlByte,
    /// More empty lines before the request line than [`super::head::EMPTY_LINES_MAX`].
    EmptyLines,
    /// `Expect` asks for something other than `100-continue`.
    ExpectationUnknown,
    /// The head exceeds [`super::head::HEAD_BYTES_MAX`].
    HeadTooLarge,
    /// A field name is empty or has a byte that is no token byte, or the line has no colon.
    HeaderNameInvalid,
    /// More than [`super::head::HEADERS_MAX`] fields.
    HeadersTooMany,
    /// `Host`, or the authority of an absolute target, is no `host[:port]`.
    HostInvalid,
    /// An HTTP/1.1 request without `Host`.
    HostMissing,
    /// More than one `Host`.
    HostRepeated,
    /// A line begins with whitespace (obs-fold).
    LineFolded,
    /// The method is no token.
    MethodInvalid,
    /// The method is longer than any method we know of.
    MethodTooLong,
    /// `CONNECT` to somewhere: this is no proxy.
    MethodUnsupported,
    /// Whitespace between a field name and its colon.
    SpaceBeforeColon,
    /// The target is in no form we serve or has an illegal byte.
    TargetInvalid,
    /// The target exceeds [`super::head::TARGET_BYTES_MAX`].
    TargetTooLong,
    /// `Transfer-Encoding` names a coding we don't know.
    TransferCodingUnknown,
    /// `Transfer-Encoding` is malformed, repeated, or does not end in a single `chunked`.
    TransferEncodingInvalid,
    /// `Transfer-Encoding` in an HTTP/1.0 request.
    TransferEncodingOnHttp10,
    /// What follows the target is no `HTTP/digit.digit`.
    VersionInvalid,
    /// A major version other than 1.
    VersionUnsupported,
}

impl HeadError {
    /// Status of the answer.
    pub fn status(self) -> Status {
        match self {
            Self::BareCr
            | Self::BareLf
            | Self::ContentLengthInvalid
            | Self::ContentLengthRepeated
            | Self::ContentLengthWithTransferEncoding
            | Self::ControlByte
            | Self::EmptyLines
            | Self::HeaderNameInvalid
            | Self::HostInvalid
            | Self::HostMissing
            | Self::HostRepeated
            | Self::LineFolded
            | Self::MethodInvalid
            | Self::SpaceBeforeColon
            | Self::TargetInvalid
            | Self::TransferEncodingInvalid
            | Self::TransferEncodingOnHttp10
            | Self::VersionInvalid => Status::BadRequest,
            Self::TargetTooLong => Status::UriTooLong,
            Self::ExpectationUnknown => Status::ExpectationFailed,
            Self::HeadTooLarge | Self::HeadersTooMany => Status::HeaderFieldsTooLarge,
            Self::MethodTooLong | Self::MethodUnsupported | Self::TransferCodingUnknown => {
                Status::NotImplemented
            }
            Self::VersionUnsupported => Status::VersionNotSupported,
        }
    }

    /// The `code` in the JSON of the answer.
    pub fn code(self) -> &'static str {
        match self {
            Self::BareCr => "bare_cr",
            Self::BareLf => "bare_lf",
            Self::ContentLengthInvalid => "content_length_invalid",
            Self::ContentLengthRepeated => "content_length_repeated",
            Self::ContentLengthWithTransferEncoding => "content_length_with_transfer_encoding",
            Self::ControlByte => "control_byte",
            Self::EmptyLines => "empty_lines",
            Self::ExpectationUnknown => "expectation_unknown",
            Self::HeadTooLarge => "head_too_large",
            Self::HeaderNameInvalid => "header_name_invalid",
            Self::HeadersTooMany => "headers_too_many",
            Self::HostInvalid => "host_invalid",
            Self::HostMissing => "host_missing",
            Self::HostRepeated => "host_repeated",
            Self::LineFolded => "line_folded",
            Self::MethodInvalid => "method_invalid",
            Self::MethodTooLong => "method_too_long",
            Self::MethodUnsupported => "not_implemented",
            Self::SpaceBeforeColon => "space_before_colon",
            Self::TargetInvalid => "target_invalid",
            Self::TargetTooLong => "target_too_long",
            Self::TransferCodingUnknown => "transfer_coding_unknown",
            Self::TransferEncodingInvalid => "transfer_encoding_invalid",
            Self::TransferEncodingOnHttp10 => "transfer_encoding_on_http10",
            Self::VersionInvalid => "version_invalid",
            Self::VersionUnsupported => "version_unsupported",
        }
    }

    /// The `message` in the JSON of the answer.
    pub fn message(self) -> &'static str {
        match self {
            Self::BareCr => "a CR without LF",
            Self::BareLf => "a LF without CR",
            Self::ContentLengthInvalid => "Content-Length is no decimal number",
            Self::ContentLengthRepeated => "more than one Content-Length",
            Self::ContentLengthWithTransferEncoding => "both Content-Length and Transfer-Encoding",
            Self::ControlByte => "a control byte in a header value",
            Self::EmptyLines => "too many empty lines before the request line",
            Self::ExpectationUnknown => "the only expectation known is 100-continue",
            Self::HeadTooLarge => "the head exceeds 16 KiB",
            Self::HeaderNameInvalid => "a header name is missing or has an illegal byte",
            Self::HeadersTooMany => "more than 64 headers",
            Self::HostInvalid => "the host is not of the form host[:port]",
            Self::HostMissing => "HTTP/1.1 needs a Host header",
            Self::HostRepeated => "more than one Host header",
            Self::LineFolded => "a header line begins with whitespace",
            Self::MethodInvalid => "the method is no token",
            Self::MethodTooLong => "the method is longer than 32 bytes",
            Self::MethodUnsupported => "a method unknown here",
            Self::SpaceBeforeColon => "whitespace between a header name and its colon",
            Self::TargetInvalid => "the request target has an illegal byte or form",
            Self::TargetTooLong => "the request target exceeds 8 KiB",
            Self::TransferCodingUnknown => "the only transfer coding known is chunked",
            Self::TransferEncodingInvalid => "Transfer-Encoding is not a single chunked",
            Self::TransferEncodingOnHttp10 => "Transfer-Encoding in an HTTP/1.0 request",
            Self::VersionInvalid => "the request line does not end in an HTTP version",
            Self::VersionUnsupported => "the only major version served is HTTP/1",
        }
    }
}
