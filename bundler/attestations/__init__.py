"""What other tools check: signatures and bills of materials, in the forms that they know.

They travel as OCI referrers of the model's manifest. Sealift itself believes TUF metadata alone;
where these are present they are checked beside it, and refused where they are wrong.
"""
