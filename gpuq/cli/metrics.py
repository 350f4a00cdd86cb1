"""`gpuq metrics`: what monitoring reads."""

import typer

from gpuq.cli import console


def metrics(context: typer.Context) -> None:
    """How the queue, the GPUs and the daemon are, in the text format of Prometheus.

    Examples:
      gpuq metrics
      gpuq metrics | grep gpuq_gpu_utilization_ratio

    Counters never fall, also when the daemon is restarted or old events are removed. For a file that is
    written over and over for node_exporter, see the setting metrics_textfile.
    """
    with console.connect(context) as client:
        console.say(client.call("metrics")["text"].removesuffix("\n"))
