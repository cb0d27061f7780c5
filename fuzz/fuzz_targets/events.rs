//! Events as serde writes and reads them: the same again, and checked for their order.
#![no_main]

use executor_core::lifecycle::{Event, EventOrder};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut order = EventOrder::default();
    for line in bytes.split(|byte| *byte == b'\n') {
        if let Ok(event) = serde_json::from_slice::<Event>(line) {
            let again = serde_json::to_vec(&event).expect("what was read can be written");
            assert_eq!(serde_json::from_slice::<Event>(&again).ok().as_ref(), Some(&event));
            let _ = order.check(&event);
        }
    }
});
