//! Makes the typed client: the schema of the service gives the types, `operations.graphql` what is asked of it.

use std::{env, error::Error, fs, path::Path};

const SCHEMA: &str = "../../../schema.graphql";
const OPERATIONS: &str = "../operations.graphql";

fn main() -> Result<(), Box<dyn Error>> {
    for file in [SCHEMA, OPERATIONS] {
        println!("cargo:rerun-if-changed={file}");
    }
    cynic_codegen::register_schema("zerostate").from_sdl_file(SCHEMA)?.as_default()?;
    let generator = cynic_querygen::Generator::new(fs::read_to_string(SCHEMA)?)?.with_schema_name("zerostate");
    let client = generator.generate(fs::read_to_string(OPERATIONS)?)?;
    // It takes every scalar for a string, and input and output of a task are any document.
    let client = client.replace("pub struct Json(pub String)", "pub struct Json(pub serde_json::Value)");
    Ok(fs::write(Path::new(&env::var("OUT_DIR")?).join("market.rs"), client)?)
}
