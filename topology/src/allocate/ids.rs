//! Node ids: small numbers that give join addresses and tunnel keys.

use fixedbitset::FixedBitSet;
use ovenbird_api::annotation::NODE_ID;
use ovenbird_api::node::NODE_IDS;
use ovsdb::Str;
use rustc_hash::FxHashMap;

/// Which node has which id.
#[derive(Clone, Debug)]
pub struct NodeIds {
    used: FixedBitSet,
    by_node: FxHashMap<Str, u16>,
}

/// An id that cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Another node has the id.
    #[error("node {node}: id {id} belongs to node {holder}; remove the annotation {NODE_ID} of one of them")]
    Taken {
        /// The node that wants it.
        node: Str,
        /// The id.
        id: u16,
        /// The node that has it.
        holder: Str,
    },
    /// An id that no node may have.
    #[error("node {node}: id {id} is not from 2 to 5001; remove the annotation {NODE_ID}")]
    OutOfRange {
        /// The node that wants it.
        node: Str,
        /// The id.
        id: u16,
    },
    /// All ids are in use.
    #[error("node {node}: all node ids from 2 to 5001 are in use; remove Node objects that are gone for good")]
    Exhausted {
        /// The node that wants one.
        node: Str,
    },
}

impl Default for NodeIds {
    fn default() -> NodeIds {
        NodeIds { used: FixedBitSet::with_capacity(usize::from(*NODE_IDS.end()) + 1), by_node: FxHashMap::default() }
    }
}

impl NodeIds {
    /// The id of a node.
    pub fn get(&self, node: &str) -> Option<u16> {
        self.by_node.get(node).copied()
    }

    /// Takes the id that a node's annotation names, in place of any other it had.
    ///
    /// # Errors
    /// When the id is another node's, or out of range; the node then keeps what it had.
    pub fn reserve(&mut self, node: &str, id: u16) -> Result<(), IdError> {
        if !NODE_IDS.contains(&id) {
            return Err(IdError::OutOfRange { node: node.into(), id });
        }
        if self.get(node) == Some(id) {
            return Ok(());
        }
        if self.used.contains(usize::from(id)) {
            let holder = self.by_node.iter().find(|(_, held)| **held == id).map(|(name, _)| name.clone());
            return Err(IdError::Taken { node: node.into(), id, holder: holder.unwrap_or_default() });
        }
        self.release(node);
        self.used.insert(usize::from(id));
        self.by_node.insert(node.into(), id);
        Ok(())
    }

    /// The node's id; the lowest free one when it has none.
    ///
    /// # Errors
    /// When all ids are in use.
    pub fn allocate(&mut self, node: &str) -> Result<u16, IdError> {
        if let Some(id) = self.get(node) {
            return Ok(id);
        }
        let id = NODE_IDS.clone().find(|id| !self.used.contains(usize::from(*id)));
        let id = id.ok_or_else(|| IdError::Exhausted { node: node.into() })?;
        self.reserve(node, id)?;
        Ok(id)
    }

    /// Frees the node's id.
    pub fn release(&mut self, node: &str) {
        if let Some(id) = self.by_node.remove(node) {
            self.used.set(usize::from(id), false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotated_ids_first_then_the_lowest_free() {
        let mut ids = NodeIds::default();
        ids.reserve("b", 2).unwrap();
        assert_eq!(ids.allocate("a"), Ok(3));
        assert_eq!(ids.allocate("b"), Ok(2), "what it has");
        let error = ids.reserve("c", 2).unwrap_err().to_string();
        assert_eq!(error, "node c: id 2 belongs to node b; remove the annotation k8s.ovn.org/node-id of one of them");
        assert!(matches!(ids.reserve("c", 1), Err(IdError::OutOfRange { .. })));
        ids.release("b");
        assert_eq!(ids.allocate("c"), Ok(2));
        ids.reserve("c", 9).unwrap();
        assert_eq!(ids.allocate("d"), Ok(2), "the former id is free");
    }

    #[test]
    fn ids_run_out() {
        let mut ids = NodeIds::default();
        for i in 0..5000 {
            ids.allocate(&format!("n{i}")).unwrap();
        }
        let error = ids.allocate("late").unwrap_err().to_string();
        assert!(error.starts_with("node late: all node ids from 2 to 5001 are in use; "), "{error}");
    }
}
