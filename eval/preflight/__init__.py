# SPDX-License-Identifier: Apache-2.0
"""Is everything there that an evaluation needs?"""
