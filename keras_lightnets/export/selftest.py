"""Asks a running server what this version must answer, and says whether it does.

    python3 selftest.py http://HOST:8501
    python3 selftest.py https://HOST/v1/models/OTHER_NAME/labels/stable

Python 3.10 is enough. Beside this file lie `metadata.json` and, in `selftest/`, a few images that
the network was not trained on, with the trained network's own answers.

Exit code 0: all as it must be. 1: a check failed, or no server answered. 2: wrong arguments.
"""

import argparse
import base64
import functools
import http.client
import json
import pathlib
import sys
import time
import urllib.error
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
ANSWERS = HERE / "selftest" / "answers.json"
IMAGES, FILES = "serving_default", "serve_bytes"  # signatures

# A PNG of one pixel, where any image will do.
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4//8/AAX+Av4N70a4AAAAAElFTkSuQmCC"
)


def send(url, body=None, timeout=30):
    """Returns HTTP status and JSON of an answer; ends the program where there is no server."""
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, {"error": " ".join(error.read().decode(errors="replace").split())}
    except (OSError, http.client.HTTPException) as error:
        sys.exit(f"selftest: cannot reach {url}: {getattr(error, 'reason', None) or error}")
    except ValueError:
        sys.exit(f"selftest: {url} is no TensorFlow Serving: its answer is no JSON")


def outputs(ask, body):
    """Returns the outputs of a request by name."""
    status, answer = ask(body)
    if status != 200:
        raise ValueError(f"HTTP {status}: {answer['error']!r}")
    return answer["outputs"]


def of_files(*files):
    """Returns a request about image files."""
    encoded = [{"b64": base64.b64encode(file).decode()} for file in files]
    return json.dumps({"signature_name": FILES, "inputs": {"image_bytes": encoded}}).encode()


def of_pixels(rows):
    """Returns a request about the pixels of one image."""
    return json.dumps({"signature_name": IMAGES, "inputs": {"images": [rows]}}).encode()


def read_ppm(path):
    """Returns the rows of pixels of an image, three numbers each."""
    _, size, _, values = path.read_bytes().split(b"\n", 3)
    width = int(size.split()[0])
    pixels = [list(values[start : start + 3]) for start in range(0, len(values), 3)]
    return [pixels[start : start + width] for start in range(0, len(pixels), width)]


def check_answers(ask, signature, bodies, known):
    """Compares probabilities, names and scores with the known answers."""
    largest = 0.0
    for image, body in zip(known["images"], bodies, strict=True):
        expected = image["probabilities"][signature]
        best, by_name = max(expected), dict(zip(known["labels"], expected, strict=True))
        answer = outputs(ask, body)
        (given,), (names,), (scores,) = (answer[k] for k in ("probabilities", "classes", "scores"))
        pairs = [(scores[0], best), *zip(given, expected, strict=True)]
        pairs += [(s, by_name.get(name, -1)) for name, s in zip(names, scores, strict=True)]
        differences = [abs(one - other) for one, other in pairs]
        # "not all", since no comparison with NaN is true.
        if not all(each <= known["tolerance"] for each in differences):
            raise ValueError(
                f"{image['file']} is {names[0]!r} with {scores[0]:.4f}, must be "
                f"{known['labels'][expected.index(best)]!r} with {best:.4f}; numbers differ by up "
                f"to {max(differences):.4f}"
            )
        largest = max(largest, *differences)
        # Only a version that rejects images of no class says this.
        must = image.get("known", {}).get(signature)
        if must is not None and answer["known"] != [must]:
            raise ValueError(f"{image['file']}: known is {answer['known'][0]}, must be {must}")
    return f"{len(bodies)} images get the known answers, within {largest:.1e}"


def check_numbers(ask, signature, bodies, known):
    """Compares the scores of labels, or values, with the known answers."""
    largest, tolerances = 0.0, known["tolerance"]
    if not isinstance(tolerances, list):
        tolerances = [tolerances] * len(known["labels"])
    for image, body in zip(known["images"], bodies, strict=True):
        output = "values" if "values" in image else "scores"
        expected = image[output][signature]
        answer = outputs(ask, body)
        (given,), (names,) = answer[output], answer["names"]
        triples = zip(given, expected, tolerances, strict=True)
        differences = [abs(one - other) / tolerance for one, other, tolerance in triples]
        if names != known["labels"] or not all(each <= 1 for each in differences):
            raise ValueError(
                f"{image['file']} has {dict(zip(names, given, strict=False))}, must have "
                f"{dict(zip(known['labels'], expected, strict=True))}"
            )
        largest = max(largest, *differences)
    return f"{len(bodies)} images get the known answers, within {largest:.1e} of what may differ"


def check_shape(ask):
    """Sends an image of another shape, which must be refused."""
    status, _ = ask(of_pixels([[[0, 0, 0]]]))
    if status != 400:
        raise ValueError(f"an image of another shape got HTTP {status}, must be 400")
    return "an image of another shape is refused"


def check_broken(ask):
    """Sends an image and a file that is none, which must be told apart."""
    valid = outputs(ask, of_files(PIXEL, b"no image"))["valid"]
    if valid != [True, False]:
        raise ValueError(f"'valid' of an image and a broken file is {valid}")
    return "a broken file is marked, the image beside it is answered"


def check_latency(ask, body, requests):
    """Times requests of one image, one after the other."""
    times = []
    for _ in range(requests):
        start = time.perf_counter()
        outputs(ask, body)
        times.append(1000 * (time.perf_counter() - start))
    times.sort()
    shown = [f"p{share} {times[share * (requests - 1) // 100]:.1f} ms" for share in (50, 90, 99)]
    return f"{', '.join(shown)} of {requests} requests of one image, one after the other"


def checks(about, ask, requests):
    """Yields the signature, the check and its arguments."""
    height, width = about["input"]["shape"][1:3]
    bodies = {FILES: [of_files(PIXEL)], IMAGES: [of_pixels([[[0, 0, 0]] * width] * height)]}
    if ANSWERS.exists():
        known = json.loads(ANSWERS.read_text(encoding="utf-8"))
        paths = [ANSWERS.with_name(image["file"]) for image in known["images"]]
        bodies[FILES] = [of_files(path.read_bytes()) for path in paths]
        bodies[IMAGES] = [of_pixels(read_ppm(path.with_suffix(".ppm"))) for path in paths]
        of_classes = all("probabilities" in image for image in known["images"])
        check = check_answers if of_classes else check_numbers
        for signature in bodies:
            yield signature, check, ask, signature, bodies[signature], known
    else:
        print("note   this version came without images: there are no answers to compare")
    yield IMAGES, check_shape, ask
    yield FILES, check_broken, ask
    for signature in bodies if requests > 0 else ():
        yield signature, check_latency, ask, bodies[signature][0], requests


def main():
    """Prints a line for each check; returns the exit code."""
    parser = argparse.ArgumentParser(description="ask a server what this version must answer")
    parser.add_argument("url", help="http://HOST:8501, also with /v1/models/NAME and what follows")
    parser.add_argument("--timeout", type=float, default=30.0, help="seconds a request (30)")
    parser.add_argument("--requests", type=int, default=50, help="that are timed; 0: none (50)")
    args = parser.parse_args()
    if not args.url.startswith(("http://", "https://")):
        parser.error(f"the URL must begin with http:// or https://. Received: {args.url}")
    about = json.loads((HERE / "metadata.json").read_text(encoding="utf-8"))
    url = args.url.rstrip("/")
    if "/v1/models/" not in url:
        url += f"/v1/models/{about['name']}/versions/{about['version']}"
    status, answer = send(url, timeout=args.timeout)
    if '"AVAILABLE"' not in json.dumps(answer):
        shown = answer if status < 300 else answer["error"]
        sys.exit(f"selftest: {url} is not available: HTTP {status}, {shown}")
    print(f"ok     {url} is available")
    ask, failed = functools.partial(send, f"{url}:predict", timeout=args.timeout), False
    for signature, check, *arguments in checks(about, ask, args.requests):
        try:
            print(f"ok     {signature}: {check(*arguments)}", flush=True)
        except ValueError as error:
            failed = True
            print(f"FAIL   {signature}: {error}", flush=True)
        except (AttributeError, IndexError, KeyError, TypeError):
            failed = True
            print(f"FAIL   {signature}: the answer has another form than this model's", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
