//! Kubernetes protobuf bodies of the few kinds that kubectl sends in no other form (`kubectl create namespace` and the
//! like). Field numbers from the generated.proto files of the Kubernetes API; everything else stays JSON.
//!
//! Input: bytes from a client, so anything. Output: the object as a tree, or why not; unknown fields are refused, because
//! to drop them would store half an object.

use serde_json::{Map, Value};

/// The media type that these bodies have.
pub(crate) const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// What a field holds.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Number,
    Flag,
    /// map<string, string>
    Texts,
    /// map<string, bytes>: base64 in JSON
    Blobs,
    Message(Message),
    /// Present in every message that Go encodes, with nothing in it that a client may set.
    Ignored,
}

/// Number, JSON name and kind of each field.
type Message = &'static [(u64, &'static str, Kind)];

const UNKNOWN: Message =
    &[(1, "type", Kind::Message(TYPE)), (3, "encoding", Kind::Ignored), (4, "media", Kind::Ignored)];
const TYPE: Message = &[(1, "apiVersion", Kind::Text), (2, "kind", Kind::Text)];
const METADATA: Message = &[
    (1, "name", Kind::Text),
    (2, "generateName", Kind::Text),
    (3, "namespace", Kind::Text),
    (4, "selfLink", Kind::Ignored),
    (5, "uid", Kind::Text),
    (6, "resourceVersion", Kind::Text),
    (7, "generation", Kind::Ignored),
    (8, "creationTimestamp", Kind::Ignored),
    (11, "labels", Kind::Texts),
    (12, "annotations", Kind::Texts),
];
const OBJECT_META: (u64, &str, Kind) = (1, "metadata", Kind::Message(METADATA));
const NAMESPACE: Message = &[OBJECT_META, (2, "spec", Kind::Ignored), (3, "status", Kind::Ignored)];
const SERVICE_ACCOUNT: Message = &[OBJECT_META];
const CONFIG_MAP: Message =
    &[OBJECT_META, (2, "data", Kind::Texts), (3, "binaryData", Kind::Blobs), (4, "immutable", Kind::Flag)];
const SECRET: Message = &[OBJECT_META, (2, "data", Kind::Blobs), (3, "type", Kind::Text), (5, "immutable", Kind::Flag)];
const PRECONDITIONS: Message = &[(1, "uid", Kind::Text), (2, "resourceVersion", Kind::Text)];
const DELETE_OPTIONS: Message = &[
    (1, "gracePeriodSeconds", Kind::Number),
    (2, "preconditions", Kind::Message(PRECONDITIONS)),
    (3, "orphanDependents", Kind::Flag),
    (4, "propagationPolicy", Kind::Text),
];
const EVICTION: Message = &[OBJECT_META, (2, "deleteOptions", Kind::Message(DELETE_OPTIONS))];

fn message(kind: &str) -> Option<Message> {
    Some(match kind {
        "Namespace" => NAMESPACE,
        "ServiceAccount" => SERVICE_ACCOUNT,
        "ConfigMap" => CONFIG_MAP,
        "Secret" => SECRET,
        "DeleteOptions" => DELETE_OPTIONS,
        "Eviction" => EVICTION,
        _ => return None,
    })
}

/// Decodes a body: the magic `k8s\0`, then a runtime.Unknown whose `raw` is the object.
///
/// # Errors
/// None when the kind is not one of those above; a text when the bytes are not what they should be.
pub(crate) fn decode(body: &[u8]) -> Result<Value, Option<String>> {
    let envelope = body.strip_prefix(b"k8s\0").ok_or_else(|| Some("it does not start with k8s\\0".to_owned()))?;
    let (mut raw, mut head) = (&[][..], Map::new());
    for field in Fields(envelope) {
        match field? {
            (2, Wire::Bytes(bytes)) => raw = bytes,
            (number, wire) => put(&mut head, UNKNOWN, number, wire)?,
        }
    }
    let head = head.remove("type").unwrap_or_default();
    let kind = head["kind"].as_str().unwrap_or("");
    let mut object = head.as_object().cloned().unwrap_or_default();
    object.extend(tree(raw, message(kind).ok_or(None)?)?);
    Ok(Value::Object(object))
}

fn tree(bytes: &[u8], message: Message) -> Result<Map<String, Value>, Option<String>> {
    let mut map = Map::new();
    for field in Fields(bytes) {
        let (number, wire) = field?;
        put(&mut map, message, number, wire)?;
    }
    Ok(map)
}

fn put(map: &mut Map<String, Value>, message: Message, number: u64, wire: Wire<'_>) -> Result<(), Option<String>> {
    let Some((_, name, kind)) = message.iter().find(|(known, ..)| *known == number) else {
        return Err(Some(format!("field {number} is not understood; send JSON")));
    };
    let value = match (kind, wire) {
        (Kind::Ignored, _) => return Ok(()),
        (Kind::Text, Wire::Bytes(b"")) => return Ok(()),
        (Kind::Text, Wire::Bytes(bytes)) => text(bytes)?.into(),
        (Kind::Number, Wire::Varint(number)) => number.cast_signed().into(),
        (Kind::Flag, Wire::Varint(number)) => (number != 0).into(),
        (Kind::Message(message), Wire::Bytes(bytes)) => tree(bytes, message)?.into(),
        (Kind::Texts | Kind::Blobs, Wire::Bytes(bytes)) => {
            let (key, value) = entry(bytes)?;
            let value = if matches!(kind, Kind::Texts) { text(value)? } else { base64(value) };
            let slot = map.entry(*name).or_insert_with(|| Value::Object(Map::new()));
            slot[key] = value.into();
            return Ok(());
        }
        _ => return Err(Some(format!("{name} has the wrong wire type"))),
    };
    map.insert((*name).to_owned(), value);
    Ok(())
}

fn entry(bytes: &[u8]) -> Result<(String, &[u8]), Option<String>> {
    let (mut key, mut value) = (String::new(), &[][..]);
    for field in Fields(bytes) {
        match field? {
            (1, Wire::Bytes(bytes)) => key = text(bytes)?,
            (2, Wire::Bytes(bytes)) => value = bytes,
            _ => return Err(Some("a map entry is neither key nor value".to_owned())),
        }
    }
    Ok((key, value))
}

fn text(bytes: &[u8]) -> Result<String, Option<String>> {
    String::from_utf8(bytes.to_vec()).map_err(|error| Some(error.to_string()))
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0, |group, byte| group << 8 | usize::from(*byte)) << (8 * (3 - chunk.len()));
        for at in 0..4 {
            let letter = char::from(ALPHABET[group >> (18 - 6 * at) & 63]);
            out.push(if at <= chunk.len() { letter } else { '=' });
        }
    }
    out
}

/// A value as it is on the wire.
enum Wire<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message, in their order.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Wire<'a>), Option<String>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let mut read = || {
            let tag = self.varint()?;
            let wire = match tag & 7 {
                0 => Wire::Varint(self.varint()?),
                2 => {
                    let length = usize::try_from(self.varint()?).ok()?;
                    let (bytes, rest) = self.0.split_at_checked(length)?;
                    self.0 = rest;
                    Wire::Bytes(bytes)
                }
                _ => return None,
            };
            Some((tag >> 3, wire))
        };
        let field = read().ok_or_else(|| Some("the message is cut off or malformed".to_owned()));
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, u8::try_from(bytes.len()).unwrap()], bytes].concat()
    }

    fn body(kind: &str, object: &[u8]) -> Vec<u8> {
        let head = [field(1, b"v1"), field(2, kind.as_bytes())].concat();
        [b"k8s\0".to_vec(), field(1, &head), field(2, object)].concat()
    }

    #[test]
    fn a_secret_is_decoded() {
        let metadata = [field(1, b"s"), field(11, &[field(1, b"k"), field(2, b"v")].concat())].concat();
        let data = [field(1, b"key"), field(2, b"hello")].concat();
        let secret = body("Secret", &[field(1, &metadata), field(2, &data), field(3, b"Opaque")].concat());
        let want = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "labels": {"k": "v"}},
            "data": {"key": "aGVsbG8="}, "type": "Opaque",
        });
        assert_eq!(decode(&secret), Ok(want));
    }

    #[test]
    fn other_kinds_and_fields_are_refused() {
        assert_eq!(decode(&body("Pod", b"")), Err(None));
        assert!(matches!(decode(&body("ConfigMap", &field(9, b"x"))), Err(Some(_))));
        assert!(matches!(decode(b"k8s\0\x0a\xff"), Err(Some(_))));
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..60), kind in "Secret|ConfigMap|Eviction") {
            let _ = decode(&bytes);
            let _ = decode(&body(&kind, &bytes));
        }
    }
}
