//! What a server answers to a transaction (RFC 7047 sections 4.1.3 and 5.2).
//!
//! Input: the text of `result`. Output: [`TxnReply`], one result per operation. Must not: know rows' types (a select's rows stay
//! text until [`OpResult::rows`] is asked for them).

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::decode::{DecodeError, Decoder};
use crate::desc::TableDesc;
use crate::row::Row;
use crate::value::Uuid;

/// Results in the order of the operations.
#[derive(Clone, Debug, Default)]
pub struct TxnReply {
    /// One per operation.
    pub ops: Vec<OpResult>,
    /// Set when every operation went well and the commit did not, e.g. "referential integrity violation".
    pub commit_error: Option<DbError>,
}

/// Result of one operation.
#[derive(Clone, Debug)]
pub enum OpResult {
    /// Done; the operation has nothing to tell.
    Done,
    /// UUID of the inserted row.
    Inserted(Uuid),
    /// Number of rows that an update, mutate or delete matched.
    Count(u64),
    /// Rows of a select, as JSON text.
    Rows(Box<RawValue>),
    /// The operation failed, and with it the transaction.
    Error(DbError),
    /// Not tried, because an earlier one failed.
    Skipped,
}

/// An `<error>` (RFC 7047 section 5.1).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, thiserror::Error)]
#[error("{error}{}{}", if details.is_some() { ": " } else { "" }, details.as_deref().unwrap_or(""))]
pub struct DbError {
    /// Kind, e.g. `constraint violation`, `timed out`, `duplicate uuid`, `not owner`.
    pub error: String,
    /// For people.
    #[serde(default)]
    pub details: Option<String>,
}

impl TxnReply {
    /// The error that undid the transaction, with the position of its operation (`None`: the commit). `None` when committed.
    pub fn error(&self) -> Option<(Option<usize>, &DbError)> {
        let failed = self.ops.iter().enumerate().find_map(|(at, op)| match op {
            OpResult::Error(error) => Some((Some(at), error)),
            _ => None,
        });
        failed.or(self.commit_error.as_ref().map(|error| (None, error)))
    }

    /// True when the transaction is in the database.
    pub fn is_committed(&self) -> bool {
        self.error().is_none()
    }

    /// Reads `result` of a reply to a transaction of `count` operations.
    pub fn parse(text: &str, count: usize) -> Result<TxnReply, DecodeError> {
        let fail = |problem: String| DecodeError { place: "reply to a transaction".into(), problem };
        let members: Vec<&RawValue> = serde_json::from_str(text).map_err(|e| fail(e.to_string()))?;
        if members.len() < count || members.len() > count + 1 {
            return Err(fail(format!("{} results for {count} operations", members.len())));
        }
        let one = |raw: &&RawValue| OpResult::parse(raw.get()).map_err(|e| fail(e.to_string()));
        let mut ops = members.iter().map(one).collect::<Result<Vec<_>, _>>()?;
        let commit_error = match ops.split_off(count).pop() {
            Some(OpResult::Error(error)) => Some(error),
            Some(_) => return Err(fail("one result too many".into())),
            None => None,
        };
        Ok(TxnReply { ops, commit_error })
    }
}

impl OpResult {
    /// The rows of a select, typed; nothing for other operations.
    pub fn rows(&self, table: &'static TableDesc) -> Result<Vec<Row>, DecodeError> {
        let OpResult::Rows(text) = self else {
            return Ok(Vec::new());
        };
        let fail =
            |e: serde_json::Error| DecodeError { place: format!("rows of {}", table.name), problem: e.to_string() };
        let rows: Vec<&RawValue> = serde_json::from_str(text.get()).map_err(fail)?;
        let mut decoder = Decoder::new();
        rows.iter().map(|row| decoder.row(row.get(), table)).collect()
    }

    fn parse(text: &str) -> Result<OpResult, serde_json::Error> {
        #[derive(Deserialize)]
        struct Members {
            error: Option<String>,
            details: Option<String>,
            uuid: Option<(String, Uuid)>,
            count: Option<u64>,
            rows: Option<Box<RawValue>>,
        }
        let Some(members) = serde_json::from_str::<Option<Members>>(text)? else {
            return Ok(OpResult::Skipped);
        };
        Ok(match members {
            Members { error: Some(error), details, .. } => OpResult::Error(DbError { error, details }),
            Members { uuid: Some((_, uuid)), .. } => OpResult::Inserted(uuid),
            Members { count: Some(count), .. } => OpResult::Count(count),
            Members { rows: Some(rows), .. } => OpResult::Rows(rows),
            _ => OpResult::Done,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_map_to_operations() {
        let text = r#"[{"uuid":["uuid","00000000-0000-0000-0000-000000000001"]},{"count":3},{},{"rows":[]},
            {"error":"constraint violation","details":"why","more":1},null]"#;
        let reply = TxnReply::parse(text, 6).unwrap();
        assert!(matches!(reply.ops[0], OpResult::Inserted(u) if u.as_u128() == 1));
        assert!(matches!(reply.ops[1], OpResult::Count(3)));
        assert!(matches!(reply.ops[2], OpResult::Done));
        assert!(matches!(&reply.ops[3], OpResult::Rows(r) if r.get() == "[]"));
        assert!(matches!(reply.ops[5], OpResult::Skipped));
        let (at, error) = reply.error().unwrap();
        assert_eq!((at, error.to_string().as_str()), (Some(4), "constraint violation: why"));
    }

    #[test]
    fn an_error_after_the_operations_is_the_commits() {
        let reply = TxnReply::parse(r#"[{},{"error":"referential integrity violation"}]"#, 1).unwrap();
        assert_eq!(reply.error().unwrap().0, None);
        assert!(!reply.is_committed());
    }

    #[test]
    fn nonsense_is_a_typed_error() {
        for (text, count) in [("{}", 0), ("[1]", 1), ("[]", 1), ("[{},{}]", 1), (r#"[{"count":-1}]"#, 1), ("[", 1)] {
            assert!(TxnReply::parse(text, count).is_err(), "{text}");
        }
    }
}
