//! Work for another thread, if there is one to be had.

use std::thread::{self, JoinHandle};

/// What is waited for in the end. Whoever wants the answer no longer waits for it all the same, by dropping it: until then
/// the thread keeps what it works with.
pub(super) struct Task<T>(Option<Way<T>>);

enum Way<T> {
    Thread(JoinHandle<T>),
    /// There was no thread to be had.
    Done(T),
}

impl<T: Send + 'static> Task<T> {
    /// Begins it, in a thread of this name.
    pub(super) fn begin(name: &str, work: impl FnOnce() -> T + Clone + Send + 'static) -> Self {
        let thread = thread::Builder::new().name(name.into()).spawn(work.clone());
        Self(Some(thread.map_or_else(|_| Way::Done(work()), Way::Thread)))
    }
}

impl<T> Task<T> {
    /// What came of it, or the panic in which it ended.
    pub(super) fn wait(mut self) -> thread::Result<T> {
        match self.0.take() {
            Some(Way::Thread(thread)) => thread.join(),
            Some(Way::Done(answer)) => Ok(answer),
            None => unreachable!("only this and drop() take it"),
        }
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        if let Some(Way::Thread(thread)) = self.0.take() {
            let _ = thread.join();
        }
    }
}
