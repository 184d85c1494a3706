#![no_main]

#[path = "../../../node/tests/nonsense/memory.rs"]
mod memory;

use std::path::Path;

use hosts::Knowledge;

/// An inventory is read by people's tools, not at line speed: text, its tree, and all that is wrong
/// with it, each with its line.
const BYTES_MAX: usize = 1 << 20;
const BYTES_MAX_PER_BYTE: usize = 2 << 10;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let peak = memory::peak_of(|| {
        let knowledge = Knowledge { presets: Some(&["default"]) };
        match hosts::parse(&text, "x.toml", Path::new("/nowhere"), knowledge) {
            Ok(inventory) => assert!(inventory.voters().count() >= 1),
            Err(problems) => assert!(problems.has_errors() && !problems.to_string().is_empty()),
        }
    });
    let bound = BYTES_MAX + BYTES_MAX_PER_BYTE * text.len();
    assert!(peak <= bound, "{} bytes of text took {peak} bytes of memory", text.len());
});
