# SPDX-License-Identifier: Apache-2.0
"""What servers are asked: questions through lm-eval, streams, completions without a pause."""
