"""Tables: data frames and files, their columns, their labels, and which rows are held out."""
