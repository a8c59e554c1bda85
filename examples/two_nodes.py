"""Two daemons with mutual TLS, as two organisations run them, and Python to drive one. Here both are on this machine."""

# %% Each organisation makes its own key and card (`comity init`), and takes the other's card (`comity trust add`).
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import comity

COMITY = str(Path(sys.executable).with_name("comity"))


def typed(*words: str) -> None:
    """Runs a command as an operator does."""
    subprocess.run([COMITY, *words], check=True, stdout=subprocess.DEVNULL)


home = TemporaryDirectory(prefix="nodes-")
hospital_folder, clinic_folder = Path(home.name, "hospital"), Path(home.name, "clinic")
typed("init", "provider", str(hospital_folder), "--party", "hospital", "--listen", "127.0.0.1:0", "--allow", "clinic")


# %% A daemon. `wait_s` waits until it serves: it loads torch first.
def started(role: str, folder: Path) -> subprocess.Popen[bytes]:
    """Starts a node."""
    return subprocess.Popen(
        [COMITY, "node", role, "--config", str(folder / "node.toml")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


daemons = [started("provider", hospital_folder)]
try:
    hospital = comity.connect(hospital_folder, wait_s=120)
    typed("init", "learner", str(clinic_folder), "--party", "clinic", "--peer", f"hospital={hospital.address}")
    typed("trust", "add", "clinic", str(clinic_folder / "clinic.pem"), "--node", str(hospital_folder))
    typed("trust", "add", "hospital", str(hospital_folder / "hospital.pem"), "--node", str(clinic_folder))
    daemons.append(started("learner", clinic_folder))

    # %% The clinic's operator: a session by terms, with a model that both nodes know by name.
    clinic = comity.connect(clinic_folder, wait_s=120)
    print(clinic)
    terms = comity.terms("assisted_learning", iterations=60, sampling_period=6, batch_size=32)
    session = clinic.run(terms, acceptors=["hospital"], model="mlp", options={"hidden": 32}, rounds=3)

    # %% Watch it: a round at a time, as they come. It goes on when nobody watches.
    for row in session.watch():
        print(f"round {row['round']}: global loss {row['global_loss']:.2f}, accuracy {row['test_accuracy']:.1%}")

    # %% What it came to, from the clinic's folder.
    result = session.result()
    print(result)
    print(sum(each.numel() for each in result.model.parameters()), "parameters")

    # %% Both nodes know of it.
    for node in (clinic, hospital):
        for each in node.sessions():
            print(f"{node.party}: session {each.session} of {each.protocol}, {each.state}")
finally:
    for daemon in daemons:
        daemon.terminate()
    for daemon in daemons:
        daemon.wait()
    home.cleanup()
