//! Makes the typed client: the schema of the service gives the types, `operations.graphql` what is asked of it.

use std::{env, error::Error, fs};

const SCHEMA: &str = "../../../schema.graphql";
const OPERATIONS: &str = "../operations.graphql";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={SCHEMA}\ncargo:rerun-if-changed={OPERATIONS}");
    cynic_codegen::register_schema("zerostate").from_sdl_file(SCHEMA)?.as_default()?;
    let generator = cynic_querygen::Generator::new(fs::read_to_string(SCHEMA)?)?.with_schema_name("zerostate");
    // It takes every scalar for a string.
    let client = generator.generate(fs::read_to_string(OPERATIONS)?)?;
    let client = client.replace("struct Json(pub String)", "struct Json(pub serde_json::Value)");
    let client = client.replace("struct DateTime(pub String)", "struct DateTime(pub chrono::DateTime<chrono::Utc>)");
    Ok(fs::write(format!("{}/market.rs", env::var("OUT_DIR")?), client)?)
}
