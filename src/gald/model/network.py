"""The networks that gald trains: its own, and hosts with GA and LD inside."""

from gald.model.plugged import Plugged
from gald.model.segmentor import Segmentor

Network = Segmentor | Plugged
