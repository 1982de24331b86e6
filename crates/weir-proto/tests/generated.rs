//! The checked-in code is what the protocols' texts generate. `WEIR_REGENERATE=1` writes it.

use std::path::Path;
use std::{env, fs};

/// Each protocol's text, and its code.
const PROTOCOLS: [(&str, &str); 3] = [
    ("weir/v1/ingest.proto", "weir.v1.rs"),
    ("weir/peers/v1/peers.proto", "weir.peers.v1.rs"),
    ("kubenetmon/flow.proto", "grpc.rs"),
];

#[test]
fn the_generated_code_is_what_the_protocols_say() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("generated");
    fs::create_dir_all(&out).unwrap();
    for (protocol, generated) in PROTOCOLS {
        let descriptors = protox::compile([protocol], [root.join("proto")]).unwrap();
        tonic_prost_build::configure()
            .build_transport(false)
            .bytes(".weir.v1.Batch.frame")
            .out_dir(&out)
            .compile_fds(descriptors)
            .unwrap();

        let fresh = fs::read_to_string(out.join(generated)).unwrap();
        let place = root.join("src/generated").join(generated);
        if env::var_os("WEIR_REGENERATE").is_some() {
            fs::write(&place, &fresh).unwrap();
        }
        let checked_in = fs::read_to_string(&place).unwrap();
        assert!(
            fresh == checked_in,
            "{protocol} and {} differ: run `WEIR_REGENERATE=1 cargo test -p weir-proto --test \
             generated`",
            place.display()
        );
    }
}
