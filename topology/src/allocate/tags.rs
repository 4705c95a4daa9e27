//! Tags of one nested node: one per pod, unique under the node's parent port. Northd does not see to that.
//!
//! A tag may come back to another pod only when the former pod's port in the VM is gone: on the wire they could not be told apart. Whoever
//! calls [`TagPool::release`] sees to it as far as can be seen from outside the VM; so that the rest is of no effect, tags are given in a ring:
//! one that was freed comes again when all others have been given since.

use ovenbird_api::annotation::POD_NETWORKS;
use ovenbird_api::nested::POD_TAGS;
use ovsdb::Str;
use rustc_hash::FxHashMap;

/// Tags in use under one parent port.
#[derive(Clone, Debug)]
pub struct TagPool {
    holders: FxHashMap<u16, Str>,
    /// The ring goes on behind it.
    last: u16,
}

/// A tag that cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TagError {
    /// Another pod has the tag.
    #[error("pod {pod}: tag {tag} is pod {holder}'s; delete the annotation {POD_NETWORKS} of one")]
    Taken {
        /// The pod that wants it.
        pod: String,
        /// The tag.
        tag: u16,
        /// The pod that has it.
        holder: Str,
    },
    /// All tags are in use.
    #[error(
        "pod {pod}: all tags of the node's parent port are in use; delete pods that are done, or move pods to other nodes"
    )]
    Exhausted {
        /// The pod that wants one.
        pod: String,
    },
}

impl Default for TagPool {
    fn default() -> TagPool {
        TagPool { holders: FxHashMap::default(), last: POD_TAGS.start() - 1 }
    }
}

impl TagPool {
    /// Takes the tag that a pod's annotation names. The ring goes on behind the highest such one: what was freed before is not known.
    ///
    /// # Errors
    /// When another pod has it.
    pub fn reserve(&mut self, pod: &str, tag: u16) -> Result<(), TagError> {
        match self.holders.get(&tag) {
            Some(holder) if **holder == *pod => return Ok(()),
            Some(holder) => return Err(TagError::Taken { pod: pod.to_owned(), tag, holder: holder.clone() }),
            None => {}
        }
        self.holders.insert(tag, pod.into());
        self.last = self.last.max(tag);
        Ok(())
    }

    /// The next free tag of the ring.
    ///
    /// # Errors
    /// When all are in use.
    pub fn allocate(&mut self, pod: &str) -> Result<u16, TagError> {
        let ring = (self.last.saturating_add(1)..=*POD_TAGS.end()).chain(POD_TAGS);
        let free = ring.into_iter().find(|tag| !self.holders.contains_key(tag));
        let tag = free.ok_or_else(|| TagError::Exhausted { pod: pod.to_owned() })?;
        self.last = tag;
        self.holders.insert(tag, pod.into());
        Ok(tag)
    }

    /// Frees a tag.
    pub fn release(&mut self, tag: u16) {
        self.holders.remove(&tag);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_freed_tag_comes_again_after_all_others() {
        let mut pool = TagPool::default();
        assert_eq!(pool.allocate("a"), Ok(2));
        for round in 0..3 {
            pool.release(2);
            for tag in 3..=4094 {
                assert_eq!(pool.allocate("b"), Ok(tag), "round {round}");
                pool.release(tag);
            }
            assert_eq!(pool.allocate("a"), Ok(2));
        }
    }

    #[test]
    fn the_ring_goes_on_behind_what_annotations_say() {
        let mut pool = TagPool::default();
        pool.reserve("a", 7).unwrap();
        pool.reserve("b", 3).unwrap();
        pool.reserve("a", 7).unwrap();
        let error = pool.reserve("c", 3).unwrap_err().to_string();
        assert!(error.starts_with("pod c: tag 3 is pod b's; "), "{error}");
        assert_eq!(pool.allocate("c"), Ok(8));
        pool.reserve("d", 4094).unwrap();
        assert_eq!(pool.allocate("e"), Ok(2));
        assert_eq!(pool.allocate("f"), Ok(4), "3 is in use");
    }

    #[test]
    fn tags_run_out() {
        let mut pool = TagPool::default();
        for tag in POD_TAGS {
            assert_eq!(pool.allocate(&tag.to_string()), Ok(tag));
        }
        let error = pool.allocate("late").unwrap_err().to_string();
        assert!(error.starts_with("pod late: all tags of the node's parent port are in use; "), "{error}");
        pool.release(9);
        assert_eq!(pool.allocate("late"), Ok(9));
    }
}
