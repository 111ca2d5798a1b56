//! The sealed format against a second implementation, both ways: PyPI `cryptography`'s Cobblestone-256.

use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tidegate_plan::{LayoutId, LeaseId};
use tidegate_seal::{BlockKey, Context, Kind, open_message, seal_message};
use tidegate_tests::dataset::{Dice, bytes};
use tidegate_tests::part;
use tidegate_tests::reader::python;

/// One line in, one line out, for each question.
fn ask(questions: &[Value]) -> Result<Vec<Value>> {
    let mut child = Command::new(python()?)
        .arg(part::repository().join("tests/vectors/cobblestone.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    let lines: String = questions.iter().map(|question| format!("{question}\n")).collect();
    let writer = std::thread::spawn(move || stdin.write_all(lines.as_bytes()));
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "the second implementation ended with {}", output.status);
    writer.join().map_err(|_| anyhow::anyhow!("the writer panicked"))??;
    let text = String::from_utf8(output.stdout)?;
    let answers: Vec<Value> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    ensure!(answers.len() == questions.len(), "{} answers", answers.len());
    Ok(answers)
}

struct Case {
    key: [u8; 32],
    context: Context,
    plain: Vec<u8>,
}

fn cases() -> Vec<Case> {
    let mut dice = Dice::new(11);
    let kinds = [Kind::Block, Kind::Manifest, Kind::LeaseKey, Kind::Results];
    [0, 1, 100, 16_383, 16_384, 16_385, 32_768, 50_000, (1 << 20) + 3]
        .into_iter()
        .enumerate()
        .map(|(n, len)| {
            let seed = dice.roll();
            let mut key = [0; 32];
            key.copy_from_slice(&bytes(seed, 32));
            let context = Context {
                kind: kinds[n % kinds.len()],
                lease: LeaseId::from_bytes([u8::try_from(n).unwrap_or(0); 16]),
                layout: LayoutId::from_bytes([7; 32]),
                number: dice.roll(),
                count: dice.roll(),
            };
            Case { key, context, plain: bytes(seed ^ 1, len) }
        })
        .collect()
}

#[test]
fn what_we_seal_they_open() -> Result<()> {
    let cases = cases();
    let questions: Vec<_> = cases
        .iter()
        .map(|case| {
            let sealed = seal_message(&BlockKey::from_bytes(case.key), &case.context, [3; 24], &case.plain);
            json!({"op": "open", "key": hex::encode(case.key), "context": hex::encode(case.context.encode()), "sealed": hex::encode(sealed)})
        })
        .collect();
    for (case, answer) in cases.iter().zip(ask(&questions)?) {
        assert_eq!(
            answer["plain"].as_str(),
            Some(hex::encode(&case.plain).as_str()),
            "{} bytes",
            case.plain.len()
        );
    }
    Ok(())
}

#[test]
fn what_they_seal_we_open_and_neither_opens_what_was_changed() -> Result<()> {
    let cases = cases();
    let questions: Vec<_> = cases
        .iter()
        .map(|case| json!({"op": "seal", "key": hex::encode(case.key), "context": hex::encode(case.context.encode()), "plain": hex::encode(&case.plain)}))
        .collect();
    let mut changed = Vec::new();
    for (case, answer) in cases.iter().zip(ask(&questions)?) {
        let sealed = hex::decode(answer["sealed"].as_str().context("not sealed")?)?;
        let key = BlockKey::from_bytes(case.key);
        let opened = open_message(&key, &case.context, &sealed)
            .map_err(|_| anyhow::anyhow!("does not open"))?;
        assert_eq!(opened[..], case.plain);
        for at in [0, 23, 24, 55, 56, sealed.len() - 1] {
            let mut other = sealed.clone();
            other[at] ^= 1;
            assert!(
                open_message(&key, &case.context, &other).is_err(),
                "byte {at} of {}",
                sealed.len()
            );
            changed.push(json!({"op": "open", "key": hex::encode(case.key), "context": hex::encode(case.context.encode()), "sealed": hex::encode(other)}));
        }
    }
    assert!(ask(&changed)?.iter().all(|answer| answer["refused"] == true));
    Ok(())
}
