"""PuRL: a deep Q-network that is paid at every decision (Gupta, Aravindan, Kalisz, Chandrasekhar & Lin, 2020)."""

from __future__ import annotations

from agents.sb3 import SB3Agent


class Purl(SB3Agent):
    """Stable-Baselines3's DQN on listed rates, with the reward ``purl`` and observation ``network``.

    As in "Learning to Prune Deep Neural Networks via Reinforcement Learning", the network is measured after every layer and the
    agent pays for what accuracy and sparsity lack of their targets; its state is the layer (one-hot), the accuracy and the sparsity
    so far. The paper's actions are magnitude thresholds in multiples of a layer's standard deviation and remove single weights;
    here they are rates and remove channels.
    """
