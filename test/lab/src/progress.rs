//! What a person sees while something takes time: one line per step, with the seconds since the start.
//!
//! In: steps. Out: lines on stderr, so that stdout stays data. It must not decide anything.

use std::time::Instant;

/// Prints steps, or keeps quiet.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    start: Instant,
    quiet: bool,
}

impl Progress {
    /// Prints every step.
    pub fn shown() -> Self {
        Self { start: Instant::now(), quiet: false }
    }

    /// Prints nothing.
    pub fn quiet() -> Self {
        Self { start: Instant::now(), quiet: true }
    }

    /// A step is done.
    pub fn step(&self, what: &str) {
        if !self.quiet {
            eprintln!("{:6.2} s  {what}", self.start.elapsed().as_secs_f64());
        }
    }
}
