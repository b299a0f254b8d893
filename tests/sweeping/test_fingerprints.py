"""A fingerprint changes with whatever changes the numbers, and with nothing else."""

import dataclasses
import types

import torch
from hybridgen.simulators import pendulum, rlc

from hybridgen.noise import GaussianNoise
from hybridgen.sweeping.fingerprints import code_versions, differences, fingerprint

SOURCE = """
FACTOR = {factor}

def helper(y):
    return {helper}

def field(t, y, z):
    return FACTOR * helper(y)
"""


def module(factor=2.0, helper="-y"):
    made = types.ModuleType("made")
    exec(SOURCE.format(factor=factor, helper=helper), made.__dict__)
    made.helper.__module__ = made.field.__module__ = "made"
    return made


def test_the_same_has_the_same():
    assert fingerprint(pendulum.simulator) == fingerprint(dataclasses.replace(pendulum.simulator))
    assert fingerprint(module().field) == fingerprint(module().field)
    assert fingerprint(rlc.simulator) != fingerprint(pendulum.simulator)


def test_what_changes_the_numbers_changes_it():
    before = fingerprint(pendulum.simulator)
    louder = dataclasses.replace(pendulum.simulator, noise=GaussianNoise(0.02))
    assert differences(before, fingerprint(louder)) == ["noise.sd: 0.01 -> 0.02"]
    longer = dataclasses.replace(pendulum.simulator, times=2 * pendulum.simulator.times)
    assert [d.partition(":")[0] for d in differences(before, fingerprint(longer))] == ["times"]


def test_functions_are_compared_by_what_they_do():
    before = fingerprint(module().field)
    assert [d.partition(":")[0] for d in differences(before, fingerprint(module(3.0).field))] == [
        "FACTOR"
    ]
    changed = fingerprint(module(helper="-y * y").field)
    assert [d.partition(":")[0] for d in differences(before, changed)] == ["helper.code"]
    assert fingerprint((lambda a: lambda: a)(1)) != fingerprint((lambda a: lambda: a)(2))


def test_weights_count():
    one, two = torch.nn.ParameterDict(), torch.nn.ParameterDict()
    one["weight"], two["weight"] = torch.zeros(2), torch.ones(2)
    (line,) = differences(fingerprint(one), fingerprint(two))
    assert line.startswith("weight: ")


def test_versions_are_there():
    assert {"torch", "numpy", "hybridgen", "hybridgen source"} <= set(code_versions())
