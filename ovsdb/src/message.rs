//! The JSON-RPC 1.0 envelope as OVSDB speaks it (RFC 7047 section 4): ids are any JSON, errors are objects or strings.
//!
//! Input: the text of one message. Output: [`Message`], whose parts are still text. Must not: know methods.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::reply::DbError;

/// One message, borrowed from its text.
#[derive(Debug)]
pub(crate) enum Message<'a> {
    /// Asks for a reply with this id.
    Request { id: &'a RawValue, method: Cow<'a, str>, params: &'a str },
    /// Asks for none.
    Notification { method: Cow<'a, str>, params: &'a str },
    /// Answers a request.
    Reply { id: &'a RawValue, result: Result<&'a str, DbError> },
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

impl<'a> Message<'a> {
    /// Tells what a message is.
    pub(crate) fn parse(text: &'a str) -> Result<Message<'a>, String> {
        let envelope: Envelope<'a> = serde_json::from_str(text).map_err(|e| e.to_string())?;
        let Envelope { id, method, params, result, error } = envelope;
        let params = params.map_or("[]", RawValue::get);
        match (method, id) {
            (Some(method), Some(id)) => Ok(Message::Request { id, method, params }),
            (Some(method), None) => Ok(Message::Notification { method, params }),
            (None, Some(id)) => {
                let result = error.map_or(Ok(result.map_or("null", RawValue::get)), |e| Err(rpc_error(e.get())));
                Ok(Message::Reply { id, result })
            }
            (None, None) => Err("neither method nor id".into()),
        }
    }
}

/// Errors come as `{"error":..., "details":...}`, sometimes as a string, and from `convert` in an array.
fn rpc_error(text: &str) -> DbError {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        Object(DbError),
        Text(String),
        Array((DbError,)),
    }
    match serde_json::from_str(text) {
        Ok(Form::Object(error) | Form::Array((error,))) => error,
        Ok(Form::Text(error)) => DbError { error, details: None },
        Err(_) => DbError { error: "error of an unknown form".into(), details: Some(text.chars().take(200).collect()) },
    }
}

/// Appends a request.
pub(crate) fn write_request(method: &str, params: impl FnOnce(&mut Vec<u8>), id: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"method\":\"");
    out.extend_from_slice(method.as_bytes());
    out.extend_from_slice(b"\",\"params\":");
    params(out);
    out.extend_from_slice(b",\"id\":");
    out.extend_from_slice(id.to_string().as_bytes());
    out.push(b'}');
}

/// Appends the reply to a request: an echo returns its parameters, anything else is refused.
pub(crate) fn write_answer(id: &RawValue, method: &str, params: &str, out: &mut Vec<u8>) {
    let (result, error) = if method == "echo" { (params, "null") } else { ("null", "\"unknown method\"") };
    for part in ["{\"result\":", result, ",\"error\":", error, ",\"id\":", id.get(), "}"] {
        out.extend_from_slice(part.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_any_json_and_errors_have_any_form() {
        let cases = [
            (r#"{"id":7,"result":[],"error":null}"#, "7", Ok("[]")),
            (
                r#"{"error":{"error":"unknown database","details":"x"},"id":["a",1],"result":null}"#,
                r#"["a",1]"#,
                Err("unknown database: x"),
            ),
            (r#"{"id":{"k":1},"error":"unknown method"}"#, r#"{"k":1}"#, Err("unknown method")),
            (r#"{"id":"s","error":[{"error":"syntax error"}]}"#, "\"s\"", Err("syntax error")),
        ];
        for (text, expected_id, expected) in cases {
            let Message::Reply { id, result } = Message::parse(text).unwrap() else { panic!("{text}") };
            assert_eq!(id.get(), expected_id);
            assert_eq!(result.map_err(|e| e.to_string()), expected.map_err(str::to_owned));
        }
        assert!(matches!(Message::parse(r#"{"method":"echo","params":[],"id":"echo"}"#), Ok(Message::Request { .. })));
        assert!(matches!(
            Message::parse(r#"{"method":"update","params":[],"id":null}"#),
            Ok(Message::Notification { .. })
        ));
        for text in ["{}", r#"{"id":null}"#, r#"{"method":1}"#, "[", r#"{"id":1"#] {
            assert!(Message::parse(text).is_err(), "{text}");
        }
    }
}
