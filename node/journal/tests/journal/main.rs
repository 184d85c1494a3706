//! The journal seen from outside, on a real directory and on a disk that fails on request.

mod real_disk;
