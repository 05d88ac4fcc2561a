"""The example files for clusters: they parse, and the commands in them are ours."""

import argparse
import os
import shlex
import subprocess

import pytest
import yaml

from lightnets.commands import train
from lightnets.config import resolve
from lightnets.distribution.workers import cluster
from tests.checkout import ROOT

FOLDER = ROOT / "docs" / "cluster"


def checked(arguments):
    """Parses arguments of `lightnets train` and returns the workers they name."""
    parser = argparse.ArgumentParser(exit_on_error=False)
    train.add_arguments(parser)
    args = parser.parse_args(arguments)
    assert args.resume is True
    assert args.out
    return cluster(resolve.resolve(args).train)


def test_the_jobset_names_its_workers_as_kubernetes_does():
    jobset = yaml.safe_load((FOLDER / "jobset.yaml").read_text())
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    name = jobset["metadata"]["name"]
    (job,) = jobset["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    assert job["replicas"] == 1
    assert spec["completionMode"] == "Indexed"
    assert spec["parallelism"] == spec["completions"]
    pod = spec["template"]["spec"]
    assert pod["restartPolicy"] == "Never"
    (container,) = pod["containers"]
    script = container["args"][0]
    subprocess.run(["bash", "-n", "-c", script], check=True)
    words = shlex.split(script.replace("$JOB_COMPLETION_INDEX", "1"))
    assert words[:3] == ["exec", "lightnets", "train"]
    members = checked([word for word in words[3:] if word.strip()])
    port = container["ports"][0]["containerPort"]
    # <jobset>-<job>-<job index>-<pod index>.<jobset>, by JobSet's headless service.
    expected = [f"{name}-{job['name']}-0-{i}.{name}:{port}" for i in range(spec["completions"])]
    assert (list(members.addresses), members.index) == (expected, 1)
    mounts = {mount["name"] for mount in container["volumeMounts"]}
    assert mounts == {volume["name"] for volume in pod["volumes"]}


@pytest.mark.parametrize("code", [0, 143, 1])
def test_the_slurm_script_starts_all_workers_and_requeues_what_was_told_to_stop(tmp_path, code):
    path = FOLDER / "slurm.sh"
    subprocess.run(["bash", "-n", path], check=True)
    # What it finds on a cluster; `lightnets` writes its arguments, one a line.
    commands = {
        "scontrol": 'if [ "$1" = show ]; then printf "n1\\nn2\\n"; else echo "$@" >> requeued; fi',
        "srun": 'shift; SLURM_PROCID=0 "$@"; SLURM_PROCID=1 "$@"',
        "lightnets": f'printf "%s\\n" "$@" > "worker$SLURM_PROCID"; exit {code}',
    }
    for name, body in commands.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    given = ["--dataset", "/data/my flowers", "--out", "/shared/run"]
    done = subprocess.run(
        ["bash", path, *given],
        cwd=tmp_path,
        env={
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "SLURM_JOB_NODELIST": "n[1-2]",
            "SLURM_JOB_ID": "7",
        },
    )
    assert done.returncode == code
    for index in range(2):
        command, *arguments = (tmp_path / f"worker{index}").read_text().splitlines()
        assert command == "train"
        assert arguments[:4] == given
        members = checked(arguments)
        assert (members.addresses, members.index) == (("n1:2222", "n2:2222"), index)
    requeued = tmp_path / "requeued"
    assert (requeued.read_text() if requeued.exists() else "") == ("requeue 7\n" * (code == 143))
