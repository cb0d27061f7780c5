//! Every message has its row in `docs/message-semantics.md`.

#[test]
fn every_message_is_in_the_document() {
    let root = env!("CARGO_MANIFEST_DIR");
    let source = std::fs::read_to_string(format!("{root}/src/messages.rs")).unwrap();
    let document = std::fs::read_to_string(format!("{root}/../../docs/message-semantics.md")).unwrap();
    let tables: Vec<_> = document.lines().filter(|line| line.starts_with("| `")).collect();
    let mut messages = Vec::new();
    let mut is_message = false;
    for line in source.lines() {
        if line.starts_with("#[derive(") {
            is_message = line.contains("Message");
        } else if let Some((_, rest)) = line.split_once("struct ").filter(|_| is_message) {
            messages.extend(rest.split(|c: char| !c.is_alphanumeric()).next());
            is_message = false;
        }
    }
    assert!(messages.contains(&"Run") && messages.contains(&"LaunchEnded"), "{messages:?}");
    for message in messages {
        let told = |row: &&&str| {
            row.split('`').skip(1).step_by(2).any(|code| code.split(['{', '(']).next() == Some(message))
        };
        assert!(tables.iter().any(|row| told(&row)), "`{message}` has no row");
    }
}
