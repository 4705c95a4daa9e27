//! Shares equal texts: thousands of pods repeat the same node names and labels. Must not: be more than a name.

use ovenbird_reconcile::Shared;

/// A table of shared texts.
pub type Interner = Shared<str>;
