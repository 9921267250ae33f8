"""The paper's figure of loss surfaces: every site's loss around the global solution, run beside run.

plane.py     two directions through a solution
solutions.py the global solution of a run and the sites' own
surface.py   losses on a grid of the plane, several places at a time
computing.py computed and cached for several runs
"""
