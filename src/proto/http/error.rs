//! Why a head is refused.

use super::response::Status;
use crate::proto::reject::Reject;

/// Why a head is refused. Each is the client's fault and ends the connection after the answer:
/// after a head we cannot read, there is no telling where the next one begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HeadError {
    /// A CR without an LF after it.
    BareCr,
    /// An LF without a CR before it.
    BareLf,
    /// `Content-Length` is not a plain decimal `u64`.
    ContentLengthInvalid,
    /// More than one `Content-Length`, even if they agree.
    ContentLengthRepeated,
    /// `Content-Length` together with `Transfer-Encoding`.
    ContentLengthWithTransferEncoding,
    /// A control byte (including NUL) in a field value.
    ControlByte,
    /// More empty lines before the request line than [`super::head::EMPTY_LINES_MAX`].
    EmptyLines,
    /// `Expect` asks for something other than `100-continue`.
    ExpectationUnknown,
    /// The head exceeds [`super::head::HEAD_BYTES_MAX`].
    HeadTooLarge,
    /// A field name is empty or has an illegal byte, or the line has no colon.
    HeaderNameInvalid,
    /// More than [`super::head::HEADERS_MAX`] fields.
    HeadersTooMany,
    /// `Host`, or the authority of an absolute target, is not a `host[:port]`.
    HostInvalid,
    /// An HTTP/1.1 request without `Host`.
    HostMissing,
    /// More than one `Host`.
    HostRepeated,
    /// A line begins with whitespace (obs-fold).
    LineFolded,
    /// The method is not a token.
    MethodInvalid,
    /// The method is longer than any we know of.
    MethodTooLong,
    /// `CONNECT`: this is not a proxy.
    MethodUnsupported,
    /// Whitespace between a field name and its colon.
    SpaceBeforeColon,
    /// The target has a form we do not serve, or an illegal byte.
    TargetInvalid,
    /// The target exceeds [`super::head::TARGET_BYTES_MAX`].
    TargetTooLong,
    /// `Transfer-Encoding` names a coding we don't know.
    TransferCodingUnknown,
    /// `Transfer-Encoding` is malformed, repeated, or does not end in a single `chunked`.
    TransferEncodingInvalid,
    /// `Transfer-Encoding` in an HTTP/1.0 request.
    TransferEncodingOnHttp10,
    /// What follows the target is not `HTTP/digit.digit`.
    VersionInvalid,
    /// A major version other than 1.
    VersionUnsupported,
}

impl From<HeadError> for Reject {
    fn from(error: HeadError) -> Self {
        let bad_request = Self::bad_request;
        match error {
            HeadError::BareCr => bad_request("bare_cr", "a CR without LF"),
            HeadError::BareLf => bad_request("bare_lf", "a LF without CR"),
            HeadError::ContentLengthInvalid => {
                bad_request("content_length_invalid", "Content-Length is not a decimal number")
            }
            HeadError::ContentLengthRepeated => {
                bad_request("content_length_repeated", "more than one Content-Length")
            }
            HeadError::ContentLengthWithTransferEncoding => bad_request(
                "content_length_with_transfer_encoding",
                "both Content-Length and Transfer-Encoding",
            ),
            HeadError::ControlByte => {
                bad_request("control_byte", "a control byte in a header value")
            }
            HeadError::EmptyLines => {
                bad_request("empty_lines", "too many empty lines before the request line")
            }
            HeadError::ExpectationUnknown => Self::new(
                Status::ExpectationFailed,
                "expectation_unknown",
                "the only expectation known is 100-continue",
            ),
            HeadError::HeadTooLarge => {
                Self::new(Status::HeaderFieldsTooLarge, "head_too_large", "the head exceeds 16 KiB")
            }
            HeadError::HeaderNameInvalid => bad_request(
                "header_name_invalid",
                "a header name is missing or has an illegal byte",
            ),
            HeadError::HeadersTooMany => {
                Self::new(Status::HeaderFieldsTooLarge, "headers_too_many", "more than 64 headers")
            }
            HeadError::HostInvalid => {
                bad_request("host_invalid", "the host is not of the form host[:port]")
            }
            HeadError::HostMissing => bad_request("host_missing", "HTTP/1.1 needs a Host header"),
            HeadError::HostRepeated => bad_request("host_repeated", "more than one Host header"),
            HeadError::LineFolded => {
                bad_request("line_folded", "a header line begins with whitespace")
            }
            HeadError::MethodInvalid => bad_request("method_invalid", "the method is not a token"),
            HeadError::MethodTooLong => Self::new(
                Status::NotImplemented,
                "method_too_long",
                "the method is longer than 32 bytes",
            ),
            HeadError::MethodUnsupported => {
                Self::new(Status::NotImplemented, "not_implemented", "the method is unknown here")
            }
            HeadError::SpaceBeforeColon => {
                bad_request("space_before_colon", "whitespace between a header name and its colon")
            }
            HeadError::TargetInvalid => {
                bad_request("target_invalid", "the request target has an illegal byte or form")
            }
            HeadError::TargetTooLong => {
                Self::new(Status::UriTooLong, "target_too_long", "the request target exceeds 8 KiB")
            }
            HeadError::TransferCodingUnknown => Self::new(
                Status::NotImplemented,
                "transfer_coding_unknown",
                "the only transfer coding known is chunked",
            ),
            HeadError::TransferEncodingInvalid => bad_request(
                "transfer_encoding_invalid",
                "Transfer-Encoding is not a single chunked",
            ),
            HeadError::TransferEncodingOnHttp10 => bad_request(
                "transfer_encoding_on_http10",
                "Transfer-Encoding in an HTTP/1.0 request",
            ),
            HeadError::VersionInvalid => {
                bad_request("version_invalid", "the request line does not end in an HTTP version")
            }
            HeadError::VersionUnsupported => Self::new(
                Status::VersionNotSupported,
                "version_unsupported",
                "the only major version served is HTTP/1",
            ),
        }
    }
}
