"""`ddf.llm`: the same verbs over `dask.dataframe`, partition by partition in Dask's workers. dask and pandas are
imported inside functions only.

accessor    the verbs
partitions  one verb over all partitions, and what a worker does with one of them
models      how a model gets into a worker, and stays there
options     what makes no sense there
"""
