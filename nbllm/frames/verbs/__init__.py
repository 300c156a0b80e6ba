"""What can be asked of a table's rows: a file a verb, and what all of them share.

source      the frame or Series that a verb was called on
settings    the keyword options that every verb takes
plan        what a verb asks of a row, and what it makes of the answers
computed    a plan carried out: the new columns
"""
