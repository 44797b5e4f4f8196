//! How memory is allocated.
//!
//! Every callback is some hundred short-lived pieces, made on one thread and freed on another. The
//! system's allocator spends a fifth of the daemon's time on those.

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;
