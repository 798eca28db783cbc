"""The one exception for mistakes that a person at the keyboard can make and mend."""


class UserError(Exception):
  """Bad input. The message is one sentence that says what is wrong and names the fix.

  The binaries print it without a traceback and exit with a non-zero code; everything else that is
  raised is a defect of the program and keeps its traceback.
  """
