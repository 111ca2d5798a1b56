use super::*;
use std::time::Instant;

fn cpu() -> f64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    t.tv_sec as f64 + t.tv_nsec as f64 / 1e9
}

#[tokio::test(flavor = "multi_thread")]
async fn speed() {
    if std::env::var_os("SPEED").is_none() {
        return;
    }
    let gib = 512.0 / 1024.0;
    let home = Home::new(&[512 * MIB]);
    let rt = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("gw")
        .enable_all()
        .build()
        .unwrap();
    let gateway = rt.spawn(Gateway::start(home)).await.unwrap();
    std::mem::forget(rt);
    gateway.presealed.store(true, std::sync::atomic::Ordering::Relaxed);
    let block = gateway.home.sealed_block(0, 1);
    *gateway.one.lock().unwrap() = block.into();
    let (c, t) = (cpu(), Instant::now());
    let worker = Worker::at(gateway, None, LONG).await;
    worker.filled().await;
    println!(
        "fill: {:.2} s/GiB wall, {:.2} cpu-s/GiB both ends, limit",
        t.elapsed().as_secs_f64() / gib,
        (cpu() - c) / gib
    );
    let ticks = |name: &str| -> f64 {
        std::fs::read_dir("/proc/self/task")
            .unwrap()
            .map(|t| t.unwrap().path())
            .filter(|p| std::fs::read_to_string(p.join("comm")).unwrap().starts_with(name))
            .map(|p| {
                std::fs::read_to_string(p.join("schedstat"))
                    .unwrap()
                    .split(' ')
                    .next()
                    .unwrap()
                    .parse::<f64>()
                    .unwrap()
                    / 1e9
            })
            .sum()
    };
    println!(
        "gw {:.2} worker {:.2} cpu-s/GiB",
        ticks("gw") / gib,
        (ticks("tokio-rt") + ticks("tidegate-fill")) / gib
    );
    if std::env::var("SPEED").unwrap() == "fill" {
        return;
    }
    // reads of block 0 only (others hold block 0's bytes): resident ciphertext
    for len in [1 << 20, 128 << 10, 16 << 10] {
        let (c, t) = (cpu(), Instant::now());
        let n = (1usize << 30) / len;
        let mut sum = 0u64;
        for i in 0..n {
            let off = (i * len) as u64 % (4 * MIB);
            let piece = worker.manifest.locate(1, off).unwrap();
            sum += worker.cache.try_read_with(&piece, len, |b| u64::from(b[0])).unwrap().unwrap();
        }
        println!(
            "read {len}: {:.3} wall s/GiB {:.3} cpu-s/GiB {sum}",
            t.elapsed().as_secs_f64(),
            cpu() - c
        );
    }
}
