"""Starts one server of tf.data service for `lightnets train --data-service`.

On one machine, then on as many as it takes to feed the accelerators:

    python data_service.py dispatcher --port 5050
    python data_service.py worker --dispatcher host0:5050 --address host1:5051

Workers need TensorFlow alone, and the files of the data set under the paths that the run names.
There is no encryption and no password: for a network that you trust.
"""

import argparse

import tensorflow as tf


def main() -> None:
    """Runs a dispatcher or a worker until it is stopped."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    roles = parser.add_subparsers(dest="role", required=True)
    dispatcher = roles.add_parser("dispatcher", help="hands out the work; one")
    dispatcher.add_argument("--port", type=int, default=5050)
    worker = roles.add_parser("worker", help="reads, decodes, augments; as many as needed")
    worker.add_argument("--dispatcher", required=True, help="host:port")
    worker.add_argument("--address", required=True, help="host:port where others reach this one")
    args = parser.parse_args()
    service = tf.data.experimental.service
    if args.role == "dispatcher":
        server = service.DispatchServer(service.DispatcherConfig(port=args.port))
    else:
        config = service.WorkerConfig(
            dispatcher_address=args.dispatcher,
            worker_address=args.address,
            port=int(args.address.rpartition(":")[2]),
        )
        server = service.WorkerServer(config)
    print(f"{args.role} is ready", flush=True)
    server.join()


if __name__ == "__main__":
    main()
