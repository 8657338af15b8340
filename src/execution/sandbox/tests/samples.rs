//! The sample agents do what their README says.

use std::fmt::Write as _;

use super::*;

fn agent(name: &str) -> Bytes {
    let bytes: &[u8] = match name {
        "text-stats-lite" => include_bytes!("../../../../agents/wasm/text-stats-lite.wasm"),
        "text-stats-pro" => include_bytes!("../../../../agents/wasm/text-stats-pro.wasm"),
        "csv-summary-lite" => include_bytes!("../../../../agents/wasm/csv-summary-lite.wasm"),
        "csv-summary-pro" => include_bytes!("../../../../agents/wasm/csv-summary-pro.wasm"),
        "json-validate-lite" => include_bytes!("../../../../agents/wasm/json-validate-lite.wasm"),
        "json-validate-pro" => include_bytes!("../../../../agents/wasm/json-validate-pro.wasm"),
        "text-keywords-lite" => include_bytes!("../../../../agents/wasm/text-keywords-lite.wasm"),
        "text-keywords-pro" => include_bytes!("../../../../agents/wasm/text-keywords-pro.wasm"),
        "text-transform-lite" => include_bytes!("../../../../agents/wasm/text-transform-lite.wasm"),
        "text-transform-pro" => include_bytes!("../../../../agents/wasm/text-transform-pro.wasm"),
        other => panic!("no sample agent is called {other}"),
    };
    Bytes::copy_from_slice(bytes)
}

/// Runs a sample agent; `Err` is its log.
async fn ask(sandbox: &Sandbox, name: &str, input: &str) -> Result<String, String> {
    let run = run_in(sandbox, &agent(name), input.as_bytes(), Limits::default()).await;
    match run.outcome {
        Ok(output) => Ok(String::from_utf8(output.into()).unwrap()),
        Err(Fault::ExitCode(1) | Fault::ExecuteFailed(1)) => Err(run.logs),
        Err(fault) => panic!("{name} on {input}: {fault}"),
    }
}

#[tokio::test]
async fn every_agent_of_the_catalogue_is_a_valid_module() {
    let catalogue: serde_json::Value = serde_json::from_str(include_str!("../../../../agents/agents.json")).unwrap();
    let agents = catalogue.as_array().unwrap();
    assert_eq!(agents.len(), 10);
    let mut offers = std::collections::HashMap::<_, u32>::new();
    for listed in agents {
        let name = listed["name"].as_str().unwrap();
        assert_eq!(listed["module"], format!("{name}.wasm"));
        let expected = if name.starts_with("text-transform") { Interface::JsonAbi } else { Interface::WasiCommand };
        assert_eq!(modules::inspect(&agent(name)), Ok(expected), "{name}");
        for capability in listed["capabilities"].as_array().unwrap() {
            *offers.entry(capability.as_str().unwrap()).or_default() += 1;
        }
    }
    assert!(offers.values().all(|offers| *offers >= 2), "an auction needs two bidders: {offers:?}");
}

#[tokio::test]
async fn text_stats() {
    let sandbox = sandbox();
    let text = r#""The cat sat. The cat's hat? It's 3.14 \u00dcber-caf\u00e9s\n\nna\u00efve \ud83d\ude80!\n""#;
    assert_eq!(
        ask(&sandbox, "text-stats-lite", text).await.unwrap(),
        r#"{"characters":59,"bytes":65,"words":11,"lines":3}"#
    );
    assert_eq!(
        ask(&sandbox, "text-stats-pro", text).await.unwrap(),
        concat!(
            r#"{"characters":59,"bytes":65,"words":11,"lines":3,"charactersWithoutSpaces":47,"sentences":3,"paragraphs":2,"#,
            r#""uniqueWords":10,"averageWordLength":3.818182,"averageSentenceLength":3.666667,"longestWord":"über-cafés","#,
            r#""readingSeconds":3,"mostCommonWords":[{"word":"the","count":2},{"word":"14","count":1},{"word":"3","count":1},"#,
            r#"{"word":"cat","count":1},{"word":"cat's","count":1},{"word":"hat","count":1},{"word":"it's","count":1},"#,
            r#"{"word":"naïve","count":1},{"word":"sat","count":1},{"word":"über-cafés","count":1}]}"#
        )
    );
    assert_eq!(
        ask(&sandbox, "text-stats-lite", r#"{"text":""}"#).await.unwrap(),
        r#"{"characters":0,"bytes":0,"words":0,"lines":0}"#
    );
    for agent in ["text-stats-lite", "text-stats-pro"] {
        for (input, reason) in [
            ("7", "the input must be a string, or an object with a string named text\n"),
            ("", "the input is not JSON: it ends too early\n"),
            ("\"a", "the input is not JSON: a string has no end\n"),
            ("\"a\" x", "the input is not JSON: something follows the value\n"),
            (r#""\ud800""#, "the input is not JSON: half of a surrogate pair\n"),
            ("[1,]", "the input is not JSON: a number wants a digit\n"),
        ] {
            assert_eq!(ask(&sandbox, agent, input).await.unwrap_err(), reason, "{input}");
        }
        let deep = "[".repeat(100_000);
        assert_eq!(ask(&sandbox, agent, &deep).await.unwrap_err(), "the input is nested too deeply\n");
    }
}

#[tokio::test]
async fn csv_summary() {
    let sandbox = sandbox();
    let table = r#""name,price,when,ok,code\r\n\"Smith, \"\"J\"\"\",1.5,2024-01-02,true,007\r\nÄnn,-2,2023-12-31,FALSE,010\r\n\r\nx,,,,\r\ny,1e2\r\n""#;
    assert_eq!(
        ask(&sandbox, "csv-summary-lite", table).await.unwrap(),
        concat!(
            r#"{"rows":4,"columns":[{"name":"name","count":4,"missing":0},{"name":"price","count":3,"missing":1},"#,
            r#"{"name":"when","count":2,"missing":2},{"name":"ok","count":2,"missing":2},{"name":"code","count":2,"missing":2}]}"#
        )
    );
    assert_eq!(
        ask(&sandbox, "csv-summary-pro", table).await.unwrap(),
        concat!(
            r#"{"rows":4,"raggedRows":1,"delimiter":",","columns":["#,
            r#"{"name":"name","count":4,"missing":0,"type":"string","distinct":4,"min":"Smith, \"J\"","max":"Änn"},"#,
            r#"{"name":"price","count":3,"missing":1,"type":"number","distinct":3,"min":-2,"max":100,"sum":99.5,"mean":33.166667},"#,
            r#"{"name":"when","count":2,"missing":2,"type":"date","distinct":2,"min":"2023-12-31","max":"2024-01-02"},"#,
            r#"{"name":"ok","count":2,"missing":2,"type":"boolean","distinct":2,"min":"FALSE","max":"true"},"#,
            r#"{"name":"code","count":2,"missing":2,"type":"string","distinct":2,"min":"007","max":"010"}]}"#
        )
    );
    let semicolons = r#"{"csv":"a;b\n1;9007199254740993\n2;1e300\n0.1;\n0.2;"}"#;
    assert_eq!(
        ask(&sandbox, "csv-summary-pro", semicolons).await.unwrap(),
        concat!(
            r#"{"rows":4,"raggedRows":0,"delimiter":";","columns":["#,
            r#"{"name":"a","count":4,"missing":0,"type":"number","distinct":4,"min":0.1,"max":2,"sum":3.3,"mean":0.825},"#,
            r#"{"name":"b","count":2,"missing":2,"type":"number","distinct":2,"min":9.00719925474099e15,"max":1e300,"sum":1e300,"mean":5e299}]}"#
        )
    );
    assert_eq!(
        ask(&sandbox, "csv-summary-lite", r#"{"csv":"a\tb\n1\t2","delimiter":"\t"}"#).await.unwrap(),
        r#"{"rows":1,"columns":[{"name":"a","count":1,"missing":0},{"name":"b","count":1,"missing":0}]}"#
    );
    for agent in ["csv-summary-lite", "csv-summary-pro"] {
        for (input, reason) in [
            (r#""""#, "the CSV is empty: its first record must name the columns\n"),
            (r#""a\n\"b""#, "the CSV has a quoted field without an end\n"),
            (r#""a\n\"b\"c""#, "the CSV has characters after a closing quote\n"),
            (
                r#"{"csv":"a","delimiter":"ab"}"#,
                "the delimiter must be one ASCII character other than a quote or a line end\n",
            ),
        ] {
            assert_eq!(ask(&sandbox, agent, input).await.unwrap_err(), reason, "{input}");
        }
    }
}

#[tokio::test]
async fn json_validate() {
    let sandbox = sandbox();
    let simple = r#"{"schema":{"type":"object","required":["id"],"properties":{"id":{"type":"integer"},
        "tags":{"type":"array","items":{"enum":["a","b"]}}}},"value":{"tags":["a","c"],"id":1.5}}"#;
    assert_eq!(
        ask(&sandbox, "json-validate-lite", simple).await.unwrap(),
        r#"{"valid":false,"errors":[{"path":"/tags/1","message":"the value is not one of the enum"}]}"#
    );
    assert_eq!(
        ask(&sandbox, "json-validate-pro", simple).await.unwrap(),
        concat!(
            r#"{"valid":false,"errors":[{"path":"/tags/1","message":"the value is not one of the enum"},"#,
            r#"{"path":"/id","message":"expected integer, found number"}],"truncated":false}"#
        )
    );
    // Each case: a schema, a value that satisfies it, one that does not, and the only error of the latter.
    let cases = [
        (r#"{"type":["string","null"]}"#, "null", "1", ("", "expected string or null, found number")),
        (r#"{"const":{"a":[1,2]}}"#, r#"{"a":[1.0,2e0]}"#, r#"{"a":[2,1]}"#, ("", "the value is not the constant")),
        (r#"{"required":["x"]}"#, r#"{"x":null}"#, "{}", ("", "the member x is missing")),
        (
            r#"{"properties":{"a/b~":{"type":"null"}}}"#,
            r#"{"a/b~":null}"#,
            r#"{"a/b~":1}"#,
            ("/a~1b~0", "expected null, found number"),
        ),
        (
            r#"{"additionalProperties":false,"properties":{"a":true}}"#,
            r#"{"a":1}"#,
            r#"{"b":1}"#,
            ("/b", "this member is not allowed"),
        ),
        (
            r#"{"additionalProperties":{"minimum":3}}"#,
            r#"{"a":3}"#,
            r#"{"b":2}"#,
            ("/b", "the number is below the minimum"),
        ),
        (r#"{"maximum":3}"#, "3", "3.5", ("", "the number is above the maximum")),
        (r#"{"exclusiveMinimum":3}"#, "4", "3", ("", "the number is not above the exclusive minimum")),
        (r#"{"exclusiveMaximum":3}"#, "2", "3", ("", "the number is not below the exclusive maximum")),
        (r#"{"multipleOf":0.1}"#, "0.3", "0.25", ("", "the number is not a multiple of multipleOf")),
        (r#"{"minLength":2}"#, r#""éé""#, r#""é""#, ("", "there are 1 characters, fewer than minLength")),
        (r#"{"maxLength":1}"#, r#""é""#, r#""ab""#, ("", "there are 2 characters, more than maxLength")),
        (r#"{"minItems":1}"#, "[1]", "[]", ("", "there are 0 items, fewer than minItems")),
        (r#"{"uniqueItems":true}"#, "[1,\"1\"]", r#"[{"a":1,"b":2},{"b":2,"a":1}]"#, ("", "two items are equal")),
        (r#"{"maxProperties":0}"#, "{}", r#"{"a":1}"#, ("", "there are 1 members, more than maxProperties")),
        (
            r#"{"anyOf":[{"type":"null"},{"minimum":5}]}"#,
            "6",
            "4",
            ("", "the value satisfies none of the schemas of anyOf"),
        ),
        (
            r#"{"oneOf":[{"minimum":1},{"minimum":5}]}"#,
            "4",
            "6",
            ("", "the value satisfies 2 of the schemas of oneOf, not exactly one"),
        ),
        (r#"{"allOf":[{"minimum":1},{"maximum":5}]}"#, "4", "6", ("", "the number is above the maximum")),
        (r#"{"not":{"type":"null"}}"#, "4", "null", ("", "the value satisfies the schema of not")),
        ("false", "", "4", ("", "no value is allowed here")),
        (
            r##"{"$ref":"#/$defs/n","$defs":{"n":{"properties":{"next":{"$ref":"#/$defs/n"},"v":{"type":"string"}}}}}"##,
            r#"{"next":{"next":{"v":""}}}"#,
            r#"{"next":{"next":{"v":1}}}"#,
            ("/next/next/v", "expected string, found number"),
        ),
    ];
    for (schema, good, bad, (path, message)) in cases {
        if !good.is_empty() {
            let input = format!(r#"{{"schema":{schema},"value":{good}}}"#);
            let answer = ask(&sandbox, "json-validate-pro", &input).await.unwrap();
            assert_eq!(answer, r#"{"valid":true,"errors":[],"truncated":false}"#, "{input}");
        }
        let input = format!(r#"{{"schema":{schema},"value":{bad}}}"#);
        let answer = ask(&sandbox, "json-validate-pro", &input).await.unwrap();
        let expected =
            format!(r#"{{"valid":false,"errors":[{{"path":"{path}","message":"{message}"}}],"truncated":false}}"#);
        assert_eq!(answer, expected, "{input}");
    }
    let many = format!(r#"{{"schema":{{"items":false}},"value":[{}0]}}"#, "0,".repeat(200));
    let answer: serde_json::Value =
        serde_json::from_str(&ask(&sandbox, "json-validate-pro", &many).await.unwrap()).unwrap();
    assert_eq!((answer["errors"].as_array().unwrap().len(), &answer["truncated"]), (100, &true.into()));
    let exactly = format!(r#"{{"schema":{{"items":false}},"value":[{}0]}}"#, "0,".repeat(99));
    let answer: serde_json::Value =
        serde_json::from_str(&ask(&sandbox, "json-validate-pro", &exactly).await.unwrap()).unwrap();
    assert_eq!((answer["errors"].as_array().unwrap().len(), &answer["truncated"]), (100, &false.into()));
    for (agent, input, reason) in [
        (
            "json-validate-lite",
            r#"{"schema":{"minimum":1},"value":1}"#,
            "the schema has a keyword that this agent does not support: minimum\n",
        ),
        (
            "json-validate-pro",
            r#"{"schema":{"pattern":"a"},"value":1}"#,
            "the schema has a keyword that this agent does not support: pattern\n",
        ),
        (
            "json-validate-pro",
            r##"{"schema":{"$ref":"#"},"value":1}"##,
            "the schema refers to itself without end, or is nested too deeply\n",
        ),
        ("json-validate-pro", r##"{"schema":{"$ref":"#/x"},"value":1}"##, "the schema refers to nothing: #/x\n"),
        ("json-validate-lite", r#"{"schema":{"type":"text"},"value":1}"#, "the schema names an unknown type: text\n"),
        ("json-validate-lite", "{}", "the input must be an object with the members schema and value\n"),
    ] {
        assert_eq!(ask(&sandbox, agent, input).await.unwrap_err(), reason, "{input}");
    }
}

#[tokio::test]
async fn text_keywords() {
    let sandbox = sandbox();
    let text = r#"{"text":"A payment channel holds money. The payment channel is opened by a payer; each payment channel is closed once, in 2024.","limit":3}"#;
    assert_eq!(
        ask(&sandbox, "text-keywords-lite", text).await.unwrap(),
        concat!(
            r#"{"keywords":[{"keyword":"channel","count":3,"score":3},{"keyword":"payment","count":3,"score":3},"#,
            r#"{"keyword":"closed","count":1,"score":1}]}"#
        )
    );
    assert_eq!(
        ask(&sandbox, "text-keywords-pro", text).await.unwrap(),
        concat!(
            r#"{"keywords":[{"keyword":"payment channel holds money","count":1,"score":13.333333},"#,
            r#"{"keyword":"payment channel","count":2,"score":10.666667},{"keyword":"closed","count":1,"score":1}]}"#
        )
    );
    assert_eq!(ask(&sandbox, "text-keywords-lite", r#""""#).await.unwrap(), r#"{"keywords":[]}"#);
    for agent in ["text-keywords-lite", "text-keywords-pro"] {
        let refused = ask(&sandbox, agent, r#"{"text":"a","limit":0}"#).await;
        assert_eq!(refused.unwrap_err(), "the limit must be a number from 1 to 100\n");
    }
}

#[tokio::test]
async fn the_examples_of_the_readme_are_true() {
    let sandbox = sandbox();
    let mut capability = String::new();
    let mut examples: Vec<(String, String)> = Vec::new();
    for line in include_str!("../../../../agents/README.md").lines().take_while(|line| *line != "## Building") {
        if let Some(name) = line.strip_prefix("**`").and_then(|rest| rest.split_once('`')) {
            capability = name.0.replace('.', "-");
        }
        for label in ["in ", "lite ", "pro "] {
            if let Some(text) = line.strip_prefix(label) {
                examples.push((format!("{capability}-{}", label.trim()), text.trim().to_owned()));
            }
        }
        if let Some(more) = line.strip_prefix("       ").filter(|more| !more.starts_with('|')) {
            examples.last_mut().unwrap().1.push_str(more.trim());
        }
    }
    let mut input = String::new();
    let mut checked = 0;
    for (agent, text) in examples {
        if agent.ends_with("-in") {
            input = text;
            continue;
        }
        let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(json(&ask(&sandbox, &agent, &input).await.unwrap()), json(&text), "{agent}");
        checked += 1;
    }
    assert_eq!(checked, 10);
}

#[tokio::test]
async fn large_inputs_are_within_the_default_limits() {
    let sandbox = sandbox();
    let text = format!("\"{}\"", "The quick brown fox jumps over the lazy dog, 12345 times. ".repeat(17_000));
    for agent in ["text-stats-lite", "text-stats-pro", "text-keywords-lite", "text-keywords-pro"] {
        let run = run_in(&sandbox, &self::agent(agent), text.as_bytes(), Limits::default()).await;
        assert!(run.outcome.is_ok(), "{agent}: {run:?}");
    }
    let mut rows = String::new();
    for row in 0..30_000 {
        write!(rows, "{row},\\\"name {row}\\\",{}.5\\n", row * 7).unwrap();
    }
    let table = format!("\"id,name,value\\n{rows}\"");
    for agent in ["csv-summary-lite", "csv-summary-pro"] {
        let run = run_in(&sandbox, &self::agent(agent), table.as_bytes(), Limits::default()).await;
        assert!(run.outcome.is_ok(), "{agent}: {run:?}");
    }
}

#[tokio::test]
async fn text_transform() {
    let sandbox = sandbox();
    let input = |text: &str, operation: &str| serde_json::json!({ "text": text, "operation": operation }).to_string();
    for agent in ["text-transform-lite", "text-transform-pro"] {
        for (operation, text, expected) in [
            ("trim", "\t a  b\r\n", "a  b"),
            ("trim", " \n", ""),
            ("squeeze", "  a \n\t b  c ", "a b c"),
            ("reverse", "Gr\u{fc}\u{df}e \u{1f680}\"\\\u{1}", "\u{1}\\\"\u{1f680} e\u{df}\u{fc}rG"),
            ("reverse", "", ""),
        ] {
            let answer = ask(&sandbox, agent, &input(text, operation)).await.unwrap();
            let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
            assert_eq!(answer, serde_json::json!({ "text": expected }), "{agent} {operation} {text:?}");
        }
        let escaped = r#" { "other" : "\/" , "operation":"\u0074rim","text":"\ud83d\ude80\u00fC\b" } "#;
        let answer = ask(&sandbox, agent, escaped).await.unwrap();
        let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer, serde_json::json!({ "text": "\u{1f680}\u{fc}\u{8}" }), "{agent}");
        for wrong in
            ["7", "{}", "", r#"{"text":"a"}"#, r#"{"text":1,"operation":"trim"}"#, r#"{"text":"a","operation":"fly"}"#]
        {
            assert!(ask(&sandbox, agent, wrong).await.is_err(), "{agent} {wrong}");
        }
        let large = input(&"\u{fc} x".repeat(150_000), "squeeze");
        let run = run_in(&sandbox, &self::agent(agent), large.as_bytes(), Limits::default()).await;
        assert!(run.outcome.is_ok(), "{agent}: {run:?}");
    }
    for (operation, text, expected) in [
        ("upper", "na\u{ef}ve \u{df}", "NA\u{cf}VE \u{1e9e}"),
        ("lower", "\u{c4}B", "\u{e4}b"),
        ("title", "the cat's HAT", "The Cat's Hat"),
        ("slug", "  Hello, W\u{f6}rld! ", "hello-w\u{f6}rld"),
    ] {
        let answer = ask(&sandbox, "text-transform-pro", &input(text, operation)).await.unwrap();
        let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer, serde_json::json!({ "text": expected }), "{operation}");
    }
}
