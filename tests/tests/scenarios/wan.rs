//! That the emulated link is what it says, since scenarios over it mean nothing otherwise.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tidegate_tests::wan::{HOME, Wan};

#[test]
fn the_link_delays_limits_and_cuts() -> Result<()> {
    const RATE: u64 = 400_000_000;
    let wan = Wan::start(Duration::from_millis(20), RATE)?;
    let listener = wan.home().within(|| Ok(TcpListener::bind((HOME, 0))?))?;
    let port = listener.local_addr()?.port();
    let started = Instant::now();
    let mut near = wan.cloud().within(move || Ok(TcpStream::connect((HOME, port))?))?;
    let connected = started.elapsed();
    ensure!(connected >= Duration::from_millis(40), "a handshake took {connected:?}");
    ensure!(connected < Duration::from_millis(200), "a handshake took {connected:?}");

    let (mut far, _) = listener.accept()?;
    let writer = std::thread::spawn(move || far.write_all(&vec![7; 40 << 20]).map(|()| far));
    let mut room = vec![0; 1 << 20];
    near.read_exact(&mut room)?;
    let started = Instant::now();
    for _ in 1..40 {
        near.read_exact(&mut room)?;
    }
    let rate = (39 << 20) as f64 * 8.0 / started.elapsed().as_secs_f64();
    ensure!(rate < 1.05 * RATE as f64, "{rate} bits a second passed a limit of {RATE}");
    ensure!(rate > 0.3 * RATE as f64, "only {rate} bits a second of {RATE}");
    let mut far = writer.join().map_err(|_| anyhow::anyhow!("panicked"))??;

    wan.cut();
    near.write_all(b"lost")?;
    far.set_read_timeout(Some(Duration::from_millis(300)))?;
    ensure!(far.read(&mut [0; 4]).is_err(), "something passed a link that is cut");
    wan.mend();
    far.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut found = [0; 4];
    far.read_exact(&mut found)?;
    assert_eq!(&found, b"lost", "TCP sends again what was lost");
    Ok(())
}
