"""Loss surfaces as in the paper's figure: every site's loss around the global solution, for several runs.

plane.py     two directions through a solution
solutions.py the global solution of a run and the solutions of the sites
surface.py   losses on a grid of the plane, several points at a time
computing.py the surfaces of several runs, with a cache
"""
