//! The checked-in code is what the protocol's text generates. `WEIR_REGENERATE=1` writes it.

use std::path::Path;
use std::{env, fs};

const PROTOCOL: &str = "weir/v1/ingest.proto";
const GENERATED: &str = "weir.v1.rs";

#[test]
fn the_generated_code_is_what_the_protocol_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let descriptors = protox::compile([PROTOCOL], [root.join("proto")]).unwrap();
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("generated");
    fs::create_dir_all(&out).unwrap();
    tonic_prost_build::configure()
        .build_transport(false)
        .bytes(".weir.v1.Batch.frame")
        .out_dir(&out)
        .compile_fds(descriptors)
        .unwrap();

    let fresh = fs::read_to_string(out.join(GENERATED)).unwrap();
    let place = root.join("src/generated").join(GENERATED);
    if env::var_os("WEIR_REGENERATE").is_some() {
        fs::write(&place, &fresh).unwrap();
    }
    let checked_in = fs::read_to_string(&place).unwrap();
    assert!(
        fresh == checked_in,
        "{PROTOCOL} and {} differ: run `WEIR_REGENERATE=1 cargo test -p weir-proto --test generated`",
        place.display()
    );
}
