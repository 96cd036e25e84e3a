"""What every network has to stand: each test class names a network and its shapes, and inherits the tests."""

from __future__ import annotations

import copy
import io
import warnings
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

Shape = tuple[int, int, int, tuple[int, ...]]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each test of a `NetworkTests` its shapes; to be imported by every module that defines one."""
    if "shape" in metafunc.fixturenames and metafunc.cls is not None:
        shapes = metafunc.cls.shapes
        if metafunc.definition.originalname == "test_onnx_round_trip":
            shapes = shapes[:1]  # the exporter is slow
        metafunc.parametrize("shape", shapes, ids=lambda s: f"{s[1]}-{s[2]}-{'x'.join(map(str, s[3]))}")


class NetworkTests:
    """Tests of one network; a subclass gives `make` and `shapes`, and pytest runs it for each shape."""

    # (spatial_dims, input channels, output channels, sides)
    shapes: ClassVar[list[Shape]]

    def make(self, dims: int, inputs: int, outputs: int, size: tuple[int, ...]) -> nn.Module:
        raise NotImplementedError

    def inputs(self, shape: Shape, batch: int = 2) -> tuple[Tensor, ...]:
        return (torch.rand(batch, shape[1], *shape[3]),)

    def expected(self, shape: Shape) -> tuple[int, ...]:
        return (shape[2], *shape[3])

    def test_output(self, shape: Shape) -> None:
        network = self.make(*shape).eval()
        inputs = self.inputs(shape)
        with torch.no_grad():
            output = network(*inputs)
            assert output.shape == (2, *self.expected(shape))
            assert output.isfinite().all()
            # nothing random, and nothing passes from one call or one case to another
            torch.testing.assert_close(network(*inputs), output, rtol=0, atol=0)
            alone = network(*(x[:1] for x in inputs))
            torch.testing.assert_close(alone, output[:1], rtol=1e-3, atol=1e-4)

    def test_training_moves_every_weight_and_no_buffer(self, shape: Shape) -> None:
        network = self.make(*shape).train()
        buffers = {name: value.clone() for name, value in network.named_buffers()}
        output = network(*self.inputs(shape))
        (output * torch.randn_like(output)).sum().backward()
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
        assert all(torch.equal(buffers[name], value) for name, value in network.named_buffers())

    def test_state_dict_round_trip(self, shape: Shape) -> None:
        network, other = self.make(*shape).eval(), self.make(*shape).eval()
        file = io.BytesIO()
        torch.save(network.state_dict(), file)
        file.seek(0)
        other.load_state_dict(torch.load(file, weights_only=True))
        inputs = self.inputs(shape)
        with torch.no_grad():
            torch.testing.assert_close(other(*inputs), network(*inputs), rtol=0, atol=0)

    def test_deep_copy_is_independent(self, shape: Shape) -> None:
        network = self.make(*shape)
        twin = copy.deepcopy(network)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(1)
        assert not any(torch.equal(a, b) for a, b in zip(network.parameters(), twin.parameters(), strict=True))


class ScriptedNetworkTests(NetworkTests):
    """Tests of a network that a bundle exports to TorchScript."""

    scriptable = True  # else it is traced

    def test_torchscript_round_trip(self, shape: Shape, tmp_path: Path) -> None:
        network = self.make(*shape).eval()
        inputs = self.inputs(shape)
        with torch.no_grad(), warnings.catch_warnings():
            # TorchScript is deprecated in torch, and still what MONAI's bundles are exported to
            warnings.simplefilter("ignore")
            module = torch.jit.script(network) if self.scriptable else torch.jit.trace(network, inputs)
            module.save(str(tmp_path / "model.ts"))
            again = torch.jit.load(str(tmp_path / "model.ts"))
            torch.testing.assert_close(again(*inputs), network(*inputs), rtol=1e-4, atol=1e-4)


class ExportedNetworkTests(ScriptedNetworkTests):
    """Tests of a network that users also get as ONNX."""

    @pytest.mark.slow
    def test_onnx_round_trip(self, shape: Shape, tmp_path: Path) -> None:
        """Slow: torch's exporter traces, decomposes and optimises for seconds, whatever the size."""
        runtime = pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
        network = self.make(*shape).eval()
        inputs = self.inputs(shape, batch=1)
        path = str(tmp_path / "model.onnx")
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # those of the exporter's own parts
            torch.onnx.export(network, inputs, path, dynamo=True, verbose=False)
            wanted = network(*inputs).numpy()
        session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
        feed = {x.name: value.numpy() for x, value in zip(session.get_inputs(), inputs, strict=True)}
        np.testing.assert_allclose(session.run(None, feed)[0], wanted, rtol=1e-3, atol=1e-3)
