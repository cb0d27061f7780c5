//! The shortest way from nothing to a program's output: `cargo run --example hello` (as root).

use std::time::Duration;

use longshore::{ContainerSpec, Error, Executor};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let executor = Executor::builder(longshore::runc().build()?).root(longshore::default_root()).build()?;

    let spec = ContainerSpec::host(["sh", "-c", "echo hello from pid $$ of $(hostname)"]).piped();
    let container = executor.run(spec).await?;
    let stdout = container.take_stdout();
    let pid = container.started().await?;
    let exit = container.wait().await;

    if let Some(stdout) = stdout {
        print!("{}", String::from_utf8_lossy(&stdout.read_to_end().await));
    }
    println!("on the host it was pid {pid}: {exit}");
    executor.shutdown(Duration::from_secs(10)).await;
    Ok(())
}
