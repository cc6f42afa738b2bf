"""What every stage and command uses: params, paths, files, processes, and how a stage ends."""
