//! How one thread goes on while another takes up what it has just woken.
//!
//! Tokio keeps the task that was woken last for the thread that woke it, and no other thread takes it from there, however long the one
//! that woke it goes on. Inputs: none, but that it is called right after waking. Must not: be called where there is nothing to go on with,
//! for a thread that pauses takes up the task sooner than another wakes up.

/// Lets another thread run the task that was woken last: a task that does nothing takes its place.
pub fn hand_over() {
    drop(tokio::spawn(std::future::ready(())));
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::{Duration, Instant};

    use tokio::sync::mpsc;

    use super::*;

    /// As a thread that plans a long burst: it wakes the client, and does not pause.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_was_woken_runs_though_the_thread_that_woke_it_goes_on() {
        const ROUNDS: usize = 20;
        let (to_client, mut commands) = mpsc::unbounded_channel();
        let taken = Arc::new(AtomicUsize::new(0));
        let count = taken.clone();
        tokio::spawn(async move {
            while commands.recv().await.is_some() {
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        let planning = tokio::spawn(async move {
            for round in 1..=ROUNDS {
                to_client.send(()).expect("the client listens");
                hand_over();
                let patience = Instant::now() + Duration::from_secs(10);
                while taken.load(Ordering::Relaxed) < round {
                    assert!(Instant::now() < patience, "command {round} waits for the thread that sent it");
                    std::hint::spin_loop();
                }
                tokio::task::yield_now().await;
            }
        });
        planning.await.expect("every command is taken");
    }
}
