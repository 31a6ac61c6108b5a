//! Refusals. Whatever a client is refused for becomes one [`Reject`], in one place next to the
//! error it comes from, and is written here, once for each way an answer can go out.

use std::borrow::Cow;

use super::envelope::{json, write_reference};
use super::http::response::Status;

/// What a client is told when something is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    /// The status of an HTTP answer. The answer to a WebSocket operation has none.
    pub status: Status,
    /// A stable name, for programs.
    pub code: &'static str,
    /// A sentence, for people.
    pub message: Cow<'static, str>,
}

impl Reject {
    /// A refusal whose message is always the same.
    pub const fn new(status: Status, code: &'static str, message: &'static str) -> Self {
        Self { status, code, message: Cow::Borrowed(message) }
    }

    /// A 400.
    pub const fn bad_request(code: &'static str, message: &'static str) -> Self {
        Self::new(Status::BadRequest, code, message)
    }

    /// Appends the body of an HTTP answer: `{"error":{"code","message"}}`.
    pub(crate) fn write_body(&self, out: &mut Vec<u8>) {
        out.push(b'{');
        write_error(out, self.code, &self.message);
        out.push(b'}');
    }

    /// Appends the answer to an operation of a WebSocket: `{"ref":…,"error":{"code","message"}}`.
    /// `reference` is as in [`super::envelope::ClientOp::reference`].
    pub fn write_op_answer(&self, out: &mut Vec<u8>, reference: Option<&str>) {
        write_reference(out, reference);
        write_error(out, self.code, &self.message);
        out.push(b'}');
    }

    /// Begins the answer to NDJSON that was refused from a line on, `{"error":{…},"line":…,`. The
    /// answer for the lines before follows.
    pub(crate) fn begin_lines_answer(&self, out: &mut Vec<u8>, line_no: u64, published: u64) {
        let message = &self.message;
        let message = format!("line {line_no}: {message}; {published} published before it");
        out.push(b'{');
        write_error(out, self.code, &message);
        out.extend_from_slice(b",\"line\":");
        out.extend_from_slice(itoa::Buffer::new().format(line_no).as_bytes());
        out.push(b',');
    }
}

fn write_error(out: &mut Vec<u8>, code: &str, message: &str) {
    out.extend_from_slice(b"\"error\":{\"code\":");
    json::write_string(out, code);
    out.extend_from_slice(b",\"message\":");
    json::write_string(out, message);
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: &str = "a \"quote\", a \\ and a \u{1} \u{7f} \n \u{20ac}";

    fn written(write: impl Fn(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn a_refusal_is_json_whatever_its_message() {
        let reject = Reject::bad_request("bad", MESSAGE);
        let body = written(|out| reject.write_body(out));
        let json: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(json, serde_json::json!({"error": {"code": "bad", "message": MESSAGE}}));
    }

    #[test]
    fn each_way_out_has_the_same_error_in_it() {
        let reject = Reject::new(Status::ServiceUnavailable, "busy", "try \"again\"");
        let error = r#""error":{"code":"busy","message":"try \"again\""}"#;
        assert_eq!(written(|out| reject.write_body(out)), format!("{{{error}}}"));
        let answer = |reference| written(|out| reject.write_op_answer(out, reference));
        assert_eq!(answer(None), format!("{{{error}}}"));
        assert_eq!(answer(Some("-1e3")), format!("{{\"ref\":-1e3,{error}}}"));
        assert_eq!(
            written(|out| reject.begin_lines_answer(out, 7, 6)),
            "{\"error\":{\"code\":\"busy\",\"message\":\"line 7: try \\\"again\\\"; \
             6 published before it\"},\"line\":7,"
        );
    }
}
