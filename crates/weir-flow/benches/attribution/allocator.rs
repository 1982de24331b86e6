//! The system's allocator, counting.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
/// Grows with what is asked for and with what is given back; the difference is held.
static ASKED: AtomicU64 = AtomicU64::new(0);
static GIVEN_BACK: AtomicU64 = AtomicU64::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The heap at a moment.
pub(crate) struct Heap {
    /// Allocations so far; growing one in place or elsewhere is another.
    pub(crate) allocations: u64,
    /// Bytes held.
    pub(crate) held: u64,
}

pub(crate) fn heap() -> Heap {
    Heap {
        allocations: ALLOCATIONS.load(Ordering::Relaxed),
        held: ASKED.load(Ordering::Relaxed) - GIVEN_BACK.load(Ordering::Relaxed),
    }
}

fn count(asked: usize, given_back: usize) {
    let number = |bytes: usize| u64::try_from(bytes).unwrap_or_default();
    ASKED.fetch_add(number(asked), Ordering::Relaxed);
    GIVEN_BACK.fetch_add(number(given_back), Ordering::Relaxed);
    ALLOCATIONS.fetch_add(u64::from(asked > 0), Ordering::Relaxed);
}

#[expect(unsafe_code, reason = "the trait is unsafe; everything is passed on")]
// SAFETY: every method is the inner allocator's own.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller keeps this method's contract, which is the inner allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size, layout.size());
        // SAFETY: the caller keeps this method's contract, which is the inner allocator's.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: the caller keeps this method's contract, which is the inner allocator's.
        unsafe { System.dealloc(pointer, layout) }
    }
}
