//! Names of OVSDB as names of Rust.
//!
//! `Logical_Switch_Port` is the module `logical_switch_port`; column `type` is `type_`, its constant `TYPE`; the value
//! `allow-related` is the variant `AllowRelated`.

const KEYWORDS: &[&str] = &["type", "match", "ref", "use", "loop", "move", "static", "where", "final", "virtual"];

/// Module of a table, or function of a column.
pub fn snake(name: &str) -> String {
    let lower = name.to_lowercase();
    if KEYWORDS.contains(&lower.as_str()) { lower + "_" } else { lower }
}

/// Constant of a column. `TABLE` is the table's own description.
pub fn constant(column: &str) -> String {
    let upper = column.to_uppercase();
    if upper == "TABLE" { upper + "_" } else { upper }
}

/// Enum of a column, or variant of a value.
pub fn camel(name: &str) -> String {
    let words = name.split(|c: char| !c.is_ascii_alphanumeric());
    words.filter_map(|w| Some(w.get(..1)?.to_uppercase() + w.get(1..)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(snake("Logical_Switch_Port"), "logical_switch_port");
        assert_eq!((snake("match").as_str(), constant("match").as_str()), ("match_", "MATCH"));
        assert_eq!(constant("table"), "TABLE_");
        assert_eq!(camel("allow-related"), "AllowRelated");
        assert_eq!(camel("dnat_and_snat"), "DnatAndSnat");
    }
}
