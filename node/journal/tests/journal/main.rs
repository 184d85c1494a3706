//! The journal seen from outside, on a real directory and on a disk that fails on request.

mod corruption;
mod crashes;
mod full;
mod model;
mod real_disk;
mod support;
mod unsynced;
