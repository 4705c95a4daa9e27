//! Annotations of Services, and of pods for them, which users write.
//!
//! Must not: know which rows follow from them.

use crate::AnnotationError;
use crate::annotation::{At, SCHEDULER, WEIGHT, quote};

/// Weight of a pod that asks for none.
pub const DEFAULT_WEIGHT: u8 = 1;
/// Largest weight: a load balancer names an endpoint once for each unit.
const LARGEST_WEIGHT: u8 = 20;

/// How new connections are spread over a Service's endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheduler {
    /// `rr`: evenly.
    RoundRobin,
    /// `wrr`: by the weight that each pod asks for.
    Weighted,
    /// `sh`: by the client's address.
    SourceHash,
}

/// Reads `scheduler`.
///
/// # Errors
/// When it is none of those that OVN can do.
pub fn parse_scheduler(text: &str) -> Result<Scheduler, AnnotationError> {
    const REMEDY: &str = "use rr (evenly), wrr (by the weight of each pod) or sh (by the client's address)";
    match text.trim() {
        "rr" => Ok(Scheduler::RoundRobin),
        "wrr" => Ok(Scheduler::Weighted),
        "sh" => Ok(Scheduler::SourceHash),
        other => {
            let at = At { annotation: SCHEDULER, field: "", remedy: REMEDY };
            Err(at.error(format!("{} is no scheduler that OVN has", quote(other))))
        }
    }
}

/// Reads `weight`, from 1 to 20.
///
/// # Errors
/// When it is no such number.
pub fn parse_weight(text: &str) -> Result<u8, AnnotationError> {
    let at = At { annotation: WEIGHT, field: "", remedy: "use a number from 1 to 20" };
    let weight = at.parse(text, "a weight")?;
    if (DEFAULT_WEIGHT..=LARGEST_WEIGHT).contains(&weight) {
        Ok(weight)
    } else {
        Err(at.error(format!("{weight} is out of range")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_small_numbers() {
        assert_eq!(parse_weight("20"), Ok(20));
        for text in ["0", "21", "-1", "300", "much", ""] {
            let error = parse_weight(text).unwrap_err().to_string();
            assert!(error.starts_with("annotation ovenbird.io/weight: ") && error.ends_with("from 1 to 20"), "{error}");
        }
    }

    #[test]
    fn schedulers_of_others_are_refused() {
        assert_eq!(parse_scheduler(" sh"), Ok(Scheduler::SourceHash));
        for name in ["lc", "wlc", "lblc", "lblcr", "dh", "sed", "nq", "mh", ""] {
            let error = parse_scheduler(name).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("annotation ovenbird.io/scheduler: {name:?} is no scheduler")),
                "{error}"
            );
        }
    }
}
